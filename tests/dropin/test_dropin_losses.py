"""The drop-in losses beside those of sentence-transformers: values, gradients, the trainer, two ranks."""

# ruff: noqa: E501 - tables of losses

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentence_transformers.sentence_transformer.losses as theirs
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    util,
)
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import inbatch.sentence_transformers as ours
from helpers.distributed import gloo, run
from helpers.tiny import save_tiny_bert, tiny_texts
from inbatch.errors import ConfigError

ROWS = 10


def model_of(path: Path) -> SentenceTransformer:
    torch.manual_seed(0)
    return SentenceTransformer(str(path), device="cpu")


def columns_of(model: SentenceTransformer, rows: slice = slice(0, ROWS), num: int = 3) -> list[dict[str, Any]]:  # fmt: skip
    texts = tiny_texts(num * 2 * ROWS, seed=5)
    return [dict(model.preprocess(texts[column::num][rows])) for column in range(num)]


def result(loss: torch.nn.Module, model: SentenceTransformer, columns: list[dict[str, Any]]) -> tuple[float, dict[str, Tensor]]:  # fmt: skip
    model.zero_grad()
    value = loss([dict(features) for features in columns], None)
    (3 * value).backward()  # as a trainer scales it
    return value.item(), {
        n: p.grad.clone() / 3 for n, p in model.named_parameters() if p.grad is not None
    }


Make = Callable[[Any, SentenceTransformer, SentenceTransformer], torch.nn.Module]
CASES: dict[str, Make] = {
    "ranking": lambda m, model, guide: m.MultipleNegativesRankingLoss(model, scale=15),
    "cached ranking": lambda m, model, guide: m.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4),
    "dot products": lambda m, model, guide: m.MultipleNegativesRankingLoss(model, scale=0.5, similarity_fct=util.dot_score),
    "all directions": lambda m, model, guide: m.CachedMultipleNegativesRankingLoss(
        model, 20.0, util.cos_sim, 3, None, False, ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"), "joint", False, "hard_negatives", 2.0
    ),
    "symmetric": lambda m, model, guide: m.MultipleNegativesSymmetricRankingLoss(model),
    "cached symmetric": lambda m, model, guide: m.CachedMultipleNegativesSymmetricRankingLoss(model, mini_batch_size=4),
    "gist": lambda m, model, guide: m.GISTEmbedLoss(model, guide, 0.05),
    "cached gist": lambda m, model, guide: m.CachedGISTEmbedLoss(model, guide, 0.05, 4, margin=0.02, contrast_anchors=False),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_original(name: str, tiny_bert: Path) -> None:
    model, guide = model_of(tiny_bert), model_of(tiny_bert)
    for parameter in guide.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    columns = columns_of(model)
    wanted, wanted_gradients = result(CASES[name](theirs, model, guide), model, columns)
    loss = CASES[name](ours, model, guide)
    for _ in range(2):  # the second time with what the guide has stored
        found, gradients = result(loss, model, columns)
        assert found == pytest.approx(wanted, rel=1e-5)
        assert gradients.keys() == wanted_gradients.keys()
        for key, gradient in wanted_gradients.items():
            assert (gradients[key] - gradient).norm() <= 2e-5 * gradient.norm() + 1e-7, key
    with torch.no_grad():
        assert float(loss([dict(c) for c in columns], None)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("keep_gib", [0, None])
def test_dropout_is_replayed(tmp_path: Path, keep_gib: float | None) -> None:
    model = model_of(save_tiny_bert(tmp_path, dropout=0.3)).train()
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        loss = ours.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4, keep_gib=keep_gib)
        found.append(result(loss, model, columns_of(model)))
    loss = ours.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4, keep_gib=0 if keep_gib is None else None)  # fmt: skip
    torch.manual_seed(7)
    value, gradients = result(loss, model, columns_of(model))
    assert value == found[0][0] == found[1][0]
    for name, gradient in found[0][1].items():
        assert torch.equal(gradient, found[1][1][name]), name
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", ours.__all__)
def test_arguments_are_those_of_the_original(name: str) -> None:
    own = inspect.signature(getattr(ours, name)).parameters
    init = getattr(theirs, name).__init__
    while init.__code__.co_varnames[:2] == (
        "args",
        "kwargs",
    ):  # what warns of old names of arguments
        init = next(cell.cell_contents for cell in init.__closure__ if callable(cell.cell_contents))
    peer = dict(list(inspect.signature(init).parameters.items())[1:])
    named = [p for p in own.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    assert [p.name for p in named] == [*peer]
    for mine, original in zip(named, peer.values(), strict=True):
        if mine.name != "similarity_fct":
            assert mine.default == original.default, mine.name


def test_the_guide_embeds_each_text_once(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide = model_of(tiny_bert), model_of(tiny_bert)
    seen: list[int] = []
    forward = guide.forward
    monkeypatch.setattr(
        guide,
        "forward",
        lambda features, **more: (
            seen.append(len(features["input_ids"])) or forward(features, **more)
        ),
    )  # type: ignore[func-returns-value]
    loss = ours.CachedGISTEmbedLoss(model, guide, mini_batch_size=4)
    columns = columns_of(model)
    distinct = {tuple(ids[: int(m.sum())]) for c in columns for ids, m in zip(c["input_ids"].tolist(), c["attention_mask"])}  # fmt: skip
    for _ in range(3):
        result(loss, model, columns)
    assert sum(seen) == len(distinct)


def _rank(rank: int, world_size: int, path: Path, gathers: bool) -> tuple[float, dict[str, Tensor]]:
    gloo()
    model, guide = model_of(path), model_of(path)
    own = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    columns = columns_of(model, own)
    loss = ours.CachedGISTEmbedLoss(model, guide, 0.05, mini_batch_size=4, gather_across_devices=gathers)  # fmt: skip
    wrapped = DistributedDataParallel(model)
    loss.model = wrapped
    with wrapped.no_sync():  # a micro-batch of a step that is accumulated
        loss([dict(c) for c in columns], None).backward()
    value = loss([dict(c) for c in columns], None)
    value.backward()
    return value.item(), {n: p.grad / 2 for n, p in model.named_parameters() if p.grad is not None}


def test_two_ranks_are_one_with_both_ranks_rows(tiny_bert: Path) -> None:
    model, guide = model_of(tiny_bert), model_of(tiny_bert)
    (one, first), (two, second) = run(_rank, 2, tiny_bert, True)
    value, gradients = result(ours.GISTEmbedLoss(model, guide, 0.05), model, columns_of(model))
    assert (one + two) / 2 == pytest.approx(value, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - gradient).norm() <= 2e-5 * gradient.norm() + 1e-7, name


def test_two_ranks_apart_have_the_mean_of_both(tiny_bert: Path) -> None:
    model, guide = model_of(tiny_bert), model_of(tiny_bert)
    loss = ours.GISTEmbedLoss(model, guide, 0.05)
    halves = [result(loss, model, columns_of(model, slice(k * ROWS // 2, (k + 1) * ROWS // 2))) for k in (0, 1)]  # fmt: skip
    (_, first), _ = run(_rank, 2, tiny_bert, False)
    for name, gradient in first.items():
        mean = (halves[0][1][name] + halves[1][1][name]) / 2
        assert (gradient - mean).norm() <= 2e-5 * mean.norm() + 1e-7, name


def test_the_trainer_takes_it_and_ends_as_with_the_original(tmp_path: Path) -> None:
    path = save_tiny_bert(tmp_path / "tiny", dropout=0.0)
    texts = tiny_texts(48, seed=9)
    rows = Dataset.from_dict(
        {name: texts[place::3] for place, name in enumerate(("anchor", "positive", "negative"))}
    )
    ended = []
    for module in (theirs, ours):
        model, guide = model_of(path), model_of(path)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / module.__name__), max_steps=4, per_device_train_batch_size=8, learning_rate=1e-3,
            use_cpu=True, report_to=[], save_strategy="no", gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=2,
        )  # fmt: skip
        loss = module.CachedGISTEmbedLoss(model, guide, 0.05, mini_batch_size=4)
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows, loss=loss)  # fmt: skip
        trainer.train()
        ended.append({name: p.detach().clone() for name, p in model.named_parameters()})
        model.save_pretrained(str(tmp_path / module.__name__ / "model"))
    start = {name: p.detach() for name, p in model_of(path).named_parameters()}
    moved = sum(float((ended[0][n] - start[n]).norm()) for n in start)
    apart = sum(float((ended[0][n] - ended[1][n]).norm()) for n in start)
    assert apart < 2e-3 * moved
    card = (tmp_path / ours.__name__ / "model" / "README.md").read_text()
    assert "CachedGISTEmbedLoss" in card
    assert '"mini_batch_size": 4' in card


def test_what_it_cannot_compute_is_refused(tiny_bert: Path) -> None:
    model = model_of(tiny_bert)
    with pytest.raises(ConfigError, match=r"similarity_fct='euclidean_sim'.*give util\.cos_sim"):
        ours.MultipleNegativesRankingLoss(model, similarity_fct=util.euclidean_sim)
    with pytest.raises(ConfigError, match="not padded texts"):
        ours.MultipleNegativesRankingLoss(model)([{"pixel_values": torch.ones(2, 3)}] * 2, None)
