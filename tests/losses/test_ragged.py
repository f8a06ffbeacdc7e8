"""Losses of rows with lists against their definition, in float64: forms, directions, guides and masks."""

from __future__ import annotations

import itertools
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.ragged_oracle import Definition, RaggedBatch, dense, make_batch, value_and_gradients
from inbatch.errors import ConfigError
from inbatch.losses import GIST, LossInput, Matryoshka, MultipleNegativesRanking, Triplet
from inbatch.losses.base import Loss
from inbatch.losses.softmax import ragged_spec, walk

EXACT = 1e-12
ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
DIRECTIONS: list[tuple[str, ...]] = [
    ALL[:1],
    ALL[:2],
    (ALL[0], ALL[2]),
    (ALL[0], ALL[3]),
    ALL,
]
# Rows, share of texts that are equal to others, and whether these are masked.
SHARED = [(1, 0.5, True), (2, 0.15, True), (7, 0.0, False), (7, 0.5, True)]
HARDNESS = ["in_batch_negatives", "hard_negatives", "all_negatives"]


@pytest.fixture(autouse=True)
def small_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels of at most three rows."""
    monkeypatch.setitem(walk.MAX_PANEL_ROWS, "cpu", 3)
    assert ragged_spec.MAX_PANEL_ROWS is walk.MAX_PANEL_ROWS


def ours(loss: Loss, batch: RaggedBatch, rows: slice | None = None) -> tuple[Tensor, list[Tensor]]:
    columns = [column.clone().requires_grad_() for column in batch.columns]
    return value_and_gradients(loss(batch.inputs(rows, columns)).loss, columns)


def wanted(definition: Definition, batch: RaggedBatch) -> tuple[Tensor, list[Tensor]]:
    columns = [column.clone().requires_grad_() for column in batch.columns]
    return value_and_gradients(torch.stack(dense(batch, columns, definition)).mean(), columns)


def error(found: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]]) -> float:
    pairs = [(found[0], other[0]), *zip(found[1], other[1], strict=True)]
    return max(float((a - b).abs().max()) for a, b in pairs)


def mnrl(d: Definition, **changes: Any) -> MultipleNegativesRanking:
    options: dict[str, Any] = {
        "temperature": d.temperature,
        "similarity": d.similarity,
        "directions": [name for name in ALL if name in d.directions],
        "partition_mode": "per_direction" if d.per_direction else "joint",
        "hardness_mode": d.hardness_mode,
        "hardness_strength": d.hardness_strength,
        "mask_duplicates": d.masked,
        "positive_form": d.form,
        "negatives": d.negatives,
        "mask_margin": d.margin if d.own_mask else None,
        "mask_margin_strategy": "relative" if d.relative else "absolute",
    }
    return MultipleNegativesRanking(**{**options, **changes})


def gist(d: Definition) -> GIST:
    assert d.margin is not None
    return GIST(
        temperature=d.temperature,
        margin=d.margin,
        margin_strategy="relative" if d.relative else "absolute",
        contrast_anchors="query_to_query" in d.directions,
        contrast_positives="doc_to_doc" in d.directions,
        mask_duplicates=d.masked,
        positive_form=d.form,  # type: ignore[arg-type]
        negatives=d.negatives,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("form", ["each", "mean", "sum"])
@pytest.mark.parametrize("directions", DIRECTIONS, ids="+".join)
def test_ranking_by_its_definition(form: str, directions: tuple[str, ...]) -> None:
    for (num_rows, shared, masked), negatives in itertools.product(SHARED, ["all", "own"]):
        batch = make_batch(num_rows, shared=shared, seed=num_rows)
        definition = Definition(
            form=form,
            directions=frozenset(directions),
            masked=masked,
            negatives=negatives,
            temperature=0.05 if masked else 0.5,
            similarity="cosine" if num_rows < 7 else "dot",
        )
        assert error(ours(mnrl(definition), batch), wanted(definition, batch)) < EXACT, definition


@pytest.mark.parametrize("form", ["each", "mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_ranking_in_both_directions_apart(form: str, masked: bool) -> None:
    for seed in range(3):
        batch = make_batch(6, shared=0.2, seed=seed)
        definition = Definition(
            form=form, directions=frozenset({ALL[0], ALL[2]}), per_direction=True, masked=masked
        )
        assert error(ours(mnrl(definition), batch), wanted(definition, batch)) < EXACT


@pytest.mark.parametrize("mode", HARDNESS)
@pytest.mark.parametrize("form", ["each", "sum"])
def test_hardness(mode: str, form: str) -> None:
    for masked, negatives in itertools.product([False, True], ["all", "own"]):
        batch = make_batch(6, shared=0.2, seed=3)
        definition = Definition(
            form=form, hardness_mode=mode, hardness_strength=5.0, masked=masked, negatives=negatives
        )
        assert error(ours(mnrl(definition), batch), wanted(definition, batch)) < EXACT


@pytest.mark.parametrize("form", ["each", "mean", "sum"])
@pytest.mark.parametrize("blocks", [(), ALL[1:2], ALL[3:], (ALL[1], ALL[3])], ids="+".join)
def test_gist_by_its_definition(form: str, blocks: tuple[str, ...]) -> None:
    for (num_rows, shared, masked), negatives, (margin, relative) in itertools.product(
        SHARED, ["all", "own"], [(0.0, False), (0.1, False), (0.2, True)]
    ):
        batch = make_batch(num_rows, shared=shared, seed=num_rows + 1)
        definition = Definition(
            form=form,
            directions=frozenset({ALL[0], *blocks}),
            masked=masked,
            negatives=negatives,
            margin=margin,
            relative=relative,
        )
        assert error(ours(gist(definition), batch), wanted(definition, batch)) < EXACT, definition


LOSSES: dict[str, Loss] = {
    "each": mnrl(Definition(directions=frozenset(ALL), masked=True)),
    "mean": mnrl(Definition(form="mean")),
    "sum": mnrl(Definition(form="sum", directions=frozenset(ALL))),
    "apart": mnrl(Definition(directions=frozenset({ALL[0], ALL[2]}), per_direction=True)),
    "gist": gist(Definition(margin=0.0, directions=frozenset(ALL))),
    "gist, sum": gist(Definition(margin=0.05, form="sum", masked=True)),
    "matryoshka": Matryoshka(mnrl(Definition(masked=True)), dims=[8, 4]),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bounds", [(0, 5, 9), (0, 3, 6, 9), (0, 1, 8, 9)])
def test_average_over_ranks_is_the_global_batch(name: str, bounds: tuple[int, ...]) -> None:
    batch = make_batch(9, shared=0.2, seed=5)
    whole = ours(LOSSES[name], batch)
    ranks = [(b - a, ours(LOSSES[name], batch, slice(a, b))) for a, b in pairwise(bounds)]
    value = torch.stack([n / 9 * found[0] for n, found in ranks]).sum()
    grads = [sum(n / 9 * found[1][k] for n, found in ranks) for k in range(2)]
    assert error((value, grads), whole) < EXACT  # type: ignore[arg-type]


COLUMNS: list[Loss] = [
    *(
        MultipleNegativesRanking(directions=directions, mask_duplicates=masked)  # type: ignore[arg-type]
        for directions in DIRECTIONS
        for masked in (False, True)
    ),
    *(MultipleNegativesRanking(hardness_mode=mode, hardness_strength=9.0) for mode in HARDNESS),  # type: ignore[arg-type]
    MultipleNegativesRanking(
        directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    ),
    MultipleNegativesRanking(directions=ALL, mask_margin=0.3, mask_duplicates=True),
    MultipleNegativesRanking(
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
        similarity="dot",
        mask_margin=0.2,
        mask_margin_strategy="relative",
    ),
    GIST(temperature=0.1),
    GIST(temperature=0.1, self_guided=True),
    GIST(temperature=0.1, margin=0.1, mask_duplicates=True),
    GIST(temperature=0.1, margin=0.1, margin_strategy="relative", contrast_positives=False),
]


@pytest.mark.parametrize("num_negatives", [0, 2])
@pytest.mark.parametrize("loss", COLUMNS, ids=str)
def test_lists_of_equal_lengths_equal_columns(loss: Loss, num_negatives: int) -> None:
    batch = make_batch(8, shared=0.2, most_positives=1, negatives=[num_negatives])
    lists = batch.inputs(slice(2, 7))
    apart = lambda column: column.view(8, 1 + num_negatives, *column.shape[1:]).unbind(1)  # noqa: E731
    columns = [c.clone().requires_grad_() for c in (batch.columns[0], *apart(batch.columns[1]))]
    assert lists.guide is not None
    assert lists.text_ids is not None
    inputs = LossInput(
        tuple(columns),
        lists.rows,
        guide=(lists.guide[0], *apart(lists.guide[1])),
        text_ids=(lists.text_ids[0], *apart(lists.text_ids[1])),
    )
    output = loss(inputs)
    value, (query, *others) = value_and_gradients(output.loss, columns)
    found = ours(loss, batch, lists.rows)
    assert error(found, (value, [query, torch.stack(others, 1).flatten(0, 1)])) < EXACT
    metrics = loss(lists).metrics
    assert metrics.keys() == output.metrics.keys()
    for key, metric in metrics.items():
        torch.testing.assert_close(metric, output.metrics[key])


def test_negatives_of_other_rows_can_be_left_out_of_columns_too() -> None:
    batch = make_batch(6, most_positives=1, negatives=[2])
    loss = MultipleNegativesRanking(negatives="own")
    columns = (batch.columns[0], *batch.columns[1].view(6, 3, -1).unbind(1))
    found = loss(LossInput(columns, slice(0, 6))).loss
    expected = wanted(Definition(temperature=0.05, negatives="own"), batch)[0]
    assert abs(float(found - expected)) < EXACT


@pytest.mark.parametrize("halvings", [0, 1, 5])
def test_panels_do_not_change_the_result(halvings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row with many positives lies between rows with one."""
    monkeypatch.setitem(walk.MAX_PANEL_ROWS, "cpu", 512)
    batch = make_batch(40, shared=0.1, most_positives=9)
    for loss in (LOSSES["each"], LOSSES["gist"]):
        whole = ours(loss, batch)
        monkeypatch.setitem(walk.PANEL_BYTES, "cpu", 1)
        monkeypatch.setitem(walk.MIN_PANEL_ROWS, "cpu", 8)
        columns = [column.clone().requires_grad_() for column in batch.columns]
        inputs = replace(batch.inputs(columns=columns), panel_halvings=halvings)
        assert error(value_and_gradients(loss(inputs).loss, columns), whole) < EXACT
        monkeypatch.undo()


def test_metrics_weigh_positives_by_rows() -> None:
    batch = make_batch(6, seed=2)
    metrics = mnrl(Definition(similarity="dot"))(batch.inputs()).metrics
    q, x = batch.columns
    means = []
    for i in range(6):
        own = [c for c, o in enumerate(batch.owner) if o == i and batch.is_positive[c]]
        means.append((x[own] @ q[i]).mean())
    torch.testing.assert_close(metrics["positive_similarity"], torch.stack(means).mean())
    best = []
    for i in range(6):
        rest = [c for c, o in enumerate(batch.owner) if o != i or not batch.is_positive[c]]
        best.append((x[rest] @ q[i]).max())
    torch.testing.assert_close(metrics["hardest_negative_similarity"], torch.stack(best).mean())


@pytest.mark.parametrize("form", ["each", "mean", "sum"])
def test_float32_and_half_precision(form: str) -> None:
    batch = make_batch(9, seed=1, dim=64)
    definition = Definition(form=form, temperature=0.02, directions=frozenset(ALL))
    exact = wanted(definition, batch)
    for dtype, limit in ((torch.float32, 2e-4), (torch.bfloat16, 0.3)):
        columns = [column.to(dtype).requires_grad_() for column in batch.columns]
        output = mnrl(definition)(batch.inputs(columns=columns))
        assert output.loss.dtype == torch.float32
        found = value_and_gradients(output.loss, columns)
        assert error((found[0], [g.double() for g in found[1]]), exact) < limit


def test_other_losses_refuse_lists() -> None:
    with pytest.raises(ConfigError, match="takes no lists"):
        Triplet()(make_batch(3).inputs())
    with pytest.raises(ConfigError, match="does not know rows with lists"):
        MultipleNegativesRanking(implementation="triton")(make_batch(3).inputs())
