"""What holds for every shipped loss: configuration, scale over ranks, checks of inputs, metrics."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.losses_oracle import assert_same, leaves, random_columns
from inbatch.config.instantiate import instantiate
from inbatch.errors import ConfigError
from inbatch.losses import Loss, LossInput, MultipleNegativesRanking

CONF = Path(__file__).parents[2] / "conf" / "loss"
FILES = sorted(path for path in CONF.glob("*.yaml") if not path.stem.startswith("cached_"))
ROWS, DIM = 12, 384


def read(file: Path) -> DictConfig:
    config = OmegaConf.load(file)
    assert isinstance(config, DictConfig)
    return config


def example(loss: Loss, num_columns: int | None = None) -> LossInput:
    if num_columns is None:
        num_columns = 3 if loss.max_columns is None else loss.max_columns
        if loss.min_columns == 1 and loss.needs_labels:  # texts by label
            num_columns = 1
    labels = torch.arange(ROWS) % 2 if loss.needs_labels or num_columns == 2 else None
    guide = random_columns(num_columns, ROWS, DIM if loss.matches_guide else 5, seed=1)
    return LossInput(
        tuple(random_columns(num_columns, ROWS, DIM)),
        slice(0, ROWS),
        labels=None if labels is None else labels.float(),
        guide=tuple(guide) if loss.needs_guide else None,
        scores=random_columns(1, ROWS, num_columns - 1, seed=2)[0].flatten()
        if loss.needs_scores
        else None,
    )


def of_rows(inputs: LossInput, rows: slice) -> LossInput:
    """What the loss of a rank with these rows sees."""
    per_row = len(inputs.columns) - 1
    own = slice(rows.start * per_row, rows.stop * per_row)
    scores = None if inputs.scores is None else inputs.scores[own]
    return replace(inputs, rows=rows, scores=scores)


def evaluate(loss: Loss, inputs: LossInput, rows: slice) -> tuple[torch.Tensor, list[torch.Tensor]]:
    columns = leaves(inputs.columns)
    value = loss(replace(of_rows(inputs, rows), columns=tuple(columns))).loss
    return value.detach(), list(torch.autograd.grad(value, columns))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_what_it_is_and_makes_a_loss(file: Path) -> None:
    assert file.read_text().startswith("# ")
    assert isinstance(instantiate(read(file)), Loss)


def test_default_file_of_each_loss_has_its_defaults() -> None:
    named_otherwise = {"multiple_negatives_symmetric_ranking", "matryoshka"}
    named_otherwise |= {"weighted_sum", "mnrl_and_similarity"}
    for file in FILES:
        if file.stem not in named_otherwise:
            config = read(file)
            assert instantiate(config) == get_class(config._target_)()


@pytest.mark.parametrize("cached", sorted(CONF.glob("cached_*.yaml")), ids=lambda file: file.stem)
def test_a_cached_loss_is_the_loss_under_gradient_caching(cached: Path) -> None:
    text = cached.read_text()
    assert text.startswith("# @package _global_\n# ")
    config = read(cached)
    assert config.loss == read(CONF / f"{cached.stem.removeprefix('cached_')}.yaml")
    # All three keys, since the file replaces whatever gradcache was chosen.
    tokens = {"chunk_size": None, "chunk_tokens": "auto", "keep_gib": "auto"}
    assert config.gradcache == tokens
    assert OmegaConf.load(CONF.parent / "gradcache" / "tokens.yaml").items() <= tokens.items()


@pytest.mark.parametrize("bounds", [(0, 6, 12), (0, 4, 8, 12), (0, 1, 2, 12)])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_average_over_ranks_is_the_global_batch(file: Path, bounds: tuple[int, ...]) -> None:
    loss = instantiate(read(file))
    inputs = example(loss)
    whole = evaluate(loss, inputs, slice(0, ROWS))
    parts = [slice(start, stop) for start, stop in pairwise(bounds)]
    weights = [(part.stop - part.start) / ROWS for part in parts]
    ranks = [evaluate(loss, inputs, part) for part in parts]
    value = sum(weight * rank[0] for weight, rank in zip(weights, ranks))
    grads = [
        sum(weight * rank[1][k] for weight, rank in zip(weights, ranks))
        for k in range(len(inputs.columns))
    ]
    assert_same((value, grads), whole)
    if loss.scope == "global":
        assert all(rank[0] == whole[0] for rank in ranks)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_row_losses_touch_only_the_rows_of_the_rank(file: Path) -> None:
    loss = instantiate(read(file))
    _, grads = evaluate(loss, example(loss), slice(3, 5))
    outside = torch.ones(ROWS, dtype=torch.bool)
    outside[3:5] = False
    touched = any(bool(grad[outside].any()) for grad in grads)
    assert touched == (loss.scope != "row")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_output(file: Path) -> None:
    loss = instantiate(read(file))
    inputs = example(loss)
    for column in inputs.columns:
        column.requires_grad_()
    output = loss(inputs)
    assert output.loss.shape == ()
    assert output.loss.requires_grad
    assert output.metrics
    for value in output.metrics.values():
        assert value.shape == ()
        assert not value.requires_grad
        assert value.isfinite()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_half_precision_inputs_are_computed_in_float32(file: Path) -> None:
    loss = instantiate(read(file))
    inputs = example(loss)
    low = tuple(column.bfloat16().requires_grad_() for column in inputs.columns)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = loss(replace(inputs, columns=low))
    exact, _ = evaluate(
        loss, replace(inputs, columns=tuple(c.detach().double() for c in low)), inputs.rows
    )
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss.detach().double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_wrong_inputs_are_refused(file: Path) -> None:
    loss = instantiate(read(file))
    inputs = example(loss)
    if loss.min_columns > 1:
        too_few = example(loss, loss.min_columns - 1)
        with pytest.raises(ConfigError, match=f"at least {loss.min_columns} text columns"):
            evaluate(loss, too_few, slice(0, ROWS))
    if loss.max_columns is not None:
        with pytest.raises(ConfigError, match=f"at most {loss.max_columns} text columns"):
            evaluate(loss, example(loss, loss.max_columns + 1), slice(0, ROWS))
    if loss.needs_labels:
        with pytest.raises(ConfigError, match="needs a label"):
            loss(LossInput(inputs.columns, inputs.rows))
    if loss.needs_guide:
        assert inputs.guide is not None
        for guide in (None, inputs.guide[:-1]):
            with pytest.raises(ConfigError, match="needs guide embeddings"):
                loss(LossInput(inputs.columns, inputs.rows, guide=guide))


def test_labels_have_one_number_a_row() -> None:
    columns = tuple(random_columns(2, 4, 3))
    with pytest.raises(ConfigError, match=r"labels has shape \(4, 1\)"):
        MultipleNegativesRanking()(LossInput(columns, slice(0, 4), labels=torch.ones(4, 1)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_waits_for_the_device(file: Path) -> None:
    """Fake tensors have no values: reading one, or a shape that depends on one, raises."""
    loss = instantiate(read(file))
    real, mode = example(loss), FakeTensorMode()
    columns = tuple(mode.from_tensor(column).requires_grad_() for column in real.columns)
    labels = None if real.labels is None else mode.from_tensor(real.labels)
    guide = None if real.guide is None else tuple(mode.from_tensor(g) for g in real.guide)
    some = of_rows(real, slice(2, ROWS))
    scores = None if some.scores is None else mode.from_tensor(some.scores)
    fake = replace(some, columns=columns, labels=labels, guide=guide, scores=scores)
    with mode:
        loss(fake).loss.backward()
    assert all(column.grad is not None for column in columns)
