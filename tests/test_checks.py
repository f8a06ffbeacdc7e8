"""What does not go together is refused before training, in one sentence."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from helpers.runs import TINY, compose_run
from inbatch.config.check import check_config
from inbatch.config.targets import check_targets
from inbatch.data.collate import MIXED
from inbatch.data.sources.load import Source
from inbatch.errors import ConfigError
from inbatch.losses import (
    GIST,
    BatchHardTriplet,
    Contrastive,
    CoSENT,
    CosineSimilarity,
    DistillKL,
    GlobalOrthogonalRegularization,
    MarginMSE,
    Matryoshka,
    MultipleNegativesRanking,
    OnlineContrastive,
    WeightedSum,
)
from inbatch.losses.base import Loss
from inbatch.run.batch_checks import check_batch, check_others, check_sizes
from inbatch.run.build import make_losses
from inbatch.run.compatibility import (
    check_dims,
    check_gather,
    check_kernels,
    check_lists,
    check_loss,
)
from inbatch.run.strategy_checks import check_strategy
from inbatch.strategies import DDP, FSDP, DeepSpeed, World

CPU = World("cpu", 1, 1)


def source(name: str, rows: int) -> Source:
    texts = [f"{name} {row}" for row in range(rows)]
    return Source.from_columns(name, {"query": texts, "positive": texts})


@pytest.mark.parametrize(
    ("sizes", "mixed", "most"),
    [
        ({"a": 11, "b": 11}, False, 10),
        ({"a": 11, "b": 5}, False, 10),
        ({"a": 15, "b": 15}, True, 14),
    ],
)
def test_a_batch_of_more_rows_than_there_are(sizes: dict[str, int], mixed: bool, most: int) -> None:
    sources = [source("a", 10), source("b", 4)]
    size = max(sizes.values())
    message = f"global_batch_size={size} is more than the {most} rows of the data: set {most} or less, or "
    with pytest.raises(ConfigError, match=message):
        check_batch(sources, sizes, mixed=mixed, drop_last=True)
    check_batch(sources, sizes, mixed=mixed, drop_last=False)


@pytest.mark.parametrize(
    ("loss", "columns", "size", "ranks", "message"),
    [
        (
            MultipleNegativesRanking(),
            2,
            1,
            1,
            "global_batch_size=1 leaves a row alone, .*: set 2 or",
        ),
        (GIST(), 2, 1, 1, "and GIST compares the rows of a batch with each other: set 2 or more"),
        (CoSENT(), 2, 1, 1, "global_batch_size=1 leaves a row alone"),
        (Matryoshka(MultipleNegativesRanking(), dims=[8]), 2, 1, 1, "MultipleNegativesRanking"),
        (MultipleNegativesRanking(), 2, 4, 4, "global_batch_size=4 .*: set 8 or more"),
        (MultipleNegativesRanking(), 3, 1, 1, ""),  # it has a hard negative
        (MultipleNegativesRanking(), 2, 8, 4, ""),
        (CosineSimilarity(), 2, 1, 1, ""),
    ],
)
def test_a_row_that_is_compared_with_others_is_not_alone(
    loss: Loss, columns: int, size: int, ranks: int, message: str
) -> None:
    names = ("query", "positive", "negative")[:columns]
    many = Source.from_columns("a", {name: [f"{name} {row}" for row in range(9)] for name in names})
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        check_others({"a": loss}, [many], {"a": size}, mixed=False, ranks=ranks)


@pytest.mark.parametrize(
    ("loss", "columns"), [(MultipleNegativesRanking(), 2), (GIST(), 2), (CoSENT(), 3)]
)
def test_one_row_is_too_few_to_compare(loss: Loss, columns: int) -> None:
    names = ("query", "positive", "negative")[:columns]
    one = Source.from_columns("a", {name: [name] for name in names})
    with pytest.raises(ConfigError, match=r"has one row, and .* with each other: add rows$"):
        check_others({"a": loss}, [one], {"a": 64}, mixed=False, ranks=1)
    sizes = {"a": 64, "b": 64}
    check_others({"a": loss, "b": loss}, [one, source("b", 9)], sizes, mixed=True, ranks=1)


def test_one_source_that_fills_a_batch_is_enough() -> None:
    sources = [source("a", 10), source("b", 4)]
    check_batch(sources, {"a": 10, "b": 10}, mixed=False, drop_last=True)
    check_batch(sources, {"a": 11, "b": 4}, mixed=False, drop_last=True)
    check_batch(sources, {"a": 14, "b": 14}, mixed=True, drop_last=True)


@pytest.mark.parametrize(
    "loss",
    [
        GIST(implementation="triton"),
        Matryoshka(MultipleNegativesRanking(implementation="triton"), dims=[8]),
    ],
)
def test_kernels_need_a_gpu(loss: Loss) -> None:
    with pytest.raises(ConfigError, match="='triton' needs a GPU"):
        check_kernels({"a": loss}, CPU, "fp32")
    with pytest.raises(ConfigError, match="computes in float32, and precision is 'fp64'"):
        check_kernels({"a": loss}, World("cuda", 1, 1), "fp64")


@pytest.mark.parametrize(
    ("loss", "labels", "span"),
    [
        (Contrastive(), [0.0, 2.0], "0 to 1"),
        (OnlineContrastive(), [-1.0, 1.0], "0 to 1"),
        (CosineSimilarity(), [0.0, 5.0], "-1 to 1"),
        (Matryoshka(CosineSimilarity(), dims=[8]), [0.0, 5.0], "-1 to 1"),
    ],
)
def test_labels_that_a_loss_cannot_take(loss: Loss, labels: list[float], span: str) -> None:
    pairs: dict[str, list[Any]] = {"sentence1": ["a", "b"], "sentence2": ["c", "d"]}
    wrong = Source.from_columns("s", {**pairs, "label": labels})
    found = f"labels from {labels[0]:g} to {labels[1]:g}, and loss .* takes {span}: "
    with pytest.raises(ConfigError, match=found):
        check_loss(loss, wrong, guided=False)
    check_loss(loss, Source.from_columns("s", {**pairs, "label": [0.0, 1.0]}), guided=False)
    check_loss(CoSENT(), wrong, guided=False)


def test_strategies_and_precisions() -> None:
    with pytest.raises(ConfigError, match="precision='fp16' is not computed under FSDP: set"):
        check_strategy(FSDP(), "fp16", "stop")
    with pytest.raises(ConfigError, match="precision='fp64' is not computed under DeepSpeed: set"):
        check_strategy(DeepSpeed(), "fp64", "stop")
    for strategy in (DDP(), FSDP(), DeepSpeed()):
        check_strategy(strategy, "bf16", "stop")


def test_a_ring_needs_candidates() -> None:
    with pytest.raises(
        ConfigError, match="gather='ring' is for losses with in-batch negatives, and"
    ):
        check_gather({"a": CoSENT(), "b": Contrastive()}, "ring")
    check_gather({"a": CoSENT(), "b": GIST(implementation="triton")}, "ring")
    check_gather({"a": CoSENT()}, "local")
    ranking = MultipleNegativesRanking()
    for loss, name in (
        (BatchHardTriplet(), "BatchHardTriplet"),
        (
            WeightedSum([ranking, GlobalOrthogonalRegularization()]),
            "GlobalOrthogonalRegularization",
        ),
        (Matryoshka(BatchHardTriplet(), [2]), "BatchHardTriplet"),
    ):
        with pytest.raises(ConfigError, match=f"and {name} needs all at once: set gather=global"):
            check_gather({"a": ranking, "b": loss}, "ring")


def test_lists_need_parts_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"query": ["a", "b"], "positive": ["c", "d"], "negative": ["e", "f"]}
    source = Source.from_columns("s", columns)
    monkeypatch.setattr(source, "ragged", object(), raising=False)
    ranking, kernels = MultipleNegativesRanking(), GIST(implementation="triton")
    check_lists({"s": ranking}, [source], gather="ring", world_size=1)
    with pytest.raises(ConfigError, match="gather='ring' does not know rows with lists"):
        check_lists({"s": ranking}, [source], gather="ring", world_size=2)
    with pytest.raises(ConfigError, match="='triton' does not know rows with lists"):
        check_lists({"s": kernels}, [source], gather="global", world_size=1)
    monkeypatch.setattr(source, "ragged", None)
    own = MultipleNegativesRanking(negatives="own")
    with pytest.raises(ConfigError, match=r"gather='ring' does not know loss\.negatives=own"):
        check_lists({"s": own}, [source], gather="ring", world_size=2)


def test_a_dimension_that_the_encoder_does_not_have() -> None:
    loss = Matryoshka(MultipleNegativesRanking(), dims=[8, 32])
    with pytest.raises(ConfigError, match="exceeds the 16 dimensions of the encoder"):
        check_dims({"a": loss}, 16)
    check_dims({"a": loss, "b": GIST()}, 32)


def test_a_sources_own_batch_divides_over_the_ranks() -> None:
    sizes: list[Any] = ["sampler=proportional", "++sampler.batch_sizes={train: 9}"]
    run = check_config(compose_run(*TINY, "data.train=x.jsonl", "global_batch_size=8", *sizes))
    with pytest.raises(
        ConfigError,
        match=r"sampler\.batch_sizes\.train=9 does not divide over 2 ranks: set 8 or 10",
    ):
        check_sizes(run.global_batch_size, run.sampler["batch_sizes"], world_size=2)


def test_losses_mask_known_positives_of_sources_with_lists() -> None:
    plain, ragged = source("plain", 4), source("ragged", 4)
    ragged.ragged = object()  # type: ignore[assignment] # lists are not looked at
    _, losses = make_losses(MultipleNegativesRanking(), [plain, ragged], guided=False, mixed=False)
    assert {name: loss.needs_text_ids for name, loss in losses.items()} == {
        "plain": False,
        "ragged": True,
        MIXED: True,
    }
    told = MultipleNegativesRanking(mask_duplicates=False)
    _, own = make_losses({"plain": CoSENT(), "ragged": told}, [ragged], guided=False, mixed=False)
    assert own == {"plain": CoSENT(), "ragged": told}
    _, losses = make_losses(MultipleNegativesRanking(), [plain], guided=False, mixed=False)
    [loss, _] = losses.values()
    assert loss == MultipleNegativesRanking(mask_duplicates=False)


@pytest.mark.parametrize("wrong", [2**24 + 1, 0.5], ids=["large", "fraction"])
def test_classes_that_float32_may_merge_are_refused(wrong: float) -> None:
    texts = ["a", "b", "c"]
    held = Source.from_columns("s", {"text": texts, "label": [1, 1, 2**24 - 1]})
    check_loss(BatchHardTriplet(), held, guided=False)
    merged = Source.from_columns("s", {"text": texts, "label": [1, 1, wrong]})
    check_loss(WeightedSum([GlobalOrthogonalRegularization()]), merged, guided=False)
    for loss in (BatchHardTriplet(), WeightedSum([BatchHardTriplet()])):
        with pytest.raises(ConfigError, match="classes, which are whole numbers below 16,777,216"):
            check_loss(loss, merged, guided=False)


def test_a_part_without_its_guide_is_named() -> None:
    texts = ["a", "b"]
    pairs = Source.from_columns("s", {"query": texts, "positive": texts})
    ranking = MultipleNegativesRanking()
    message = "has a part GIST, which needs a guide: set .* or self_guided of GIST=true"
    with pytest.raises(ConfigError, match=message):
        check_loss(WeightedSum([ranking, GIST()]), pairs, guided=False)
    with pytest.raises(ConfigError, match=r"='GIST' needs a guide: set .*loss.self_guided=true"):
        check_loss(GIST(), pairs, guided=False)


def test_scored_positives_alone_are_a_distribution_and_no_margin() -> None:
    columns: dict[str, Any] = {
        "query": ["a", "b"],
        "positive": [["c", "d"], ["e", "f"]],
        "scores": [[1.0, 2.0], [3.0, 4.0]],
    }
    mapping = {"query": "query", "positive": "positive", "positive_score": "scores"}
    lists = Source.from_columns("s", columns, mapping=mapping)
    for loss in (DistillKL(), WeightedSum([MultipleNegativesRanking(), DistillKL()])):
        check_loss(loss, lists, guided=False)
    with pytest.raises(ConfigError, match=r"at least 3 text columns.*set .*columns\.negatives"):
        check_loss(MarginMSE(), lists, guided=False)


def test_an_error_in_a_part_has_its_path() -> None:
    ranking = {"_target_": "inbatch.losses.MultipleNegativesRanking", "temperature": -1.0}
    node = {"_target_": "inbatch.losses.WeightedSum", "losses": [ranking]}
    with pytest.raises(ConfigError, match=r"loss\.losses\[0\]\.temperature=-1.0 is not a finite"):
        check_targets(node, "loss")
