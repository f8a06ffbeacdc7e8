"""The divergence over the global batch against dense matrices: values, gradients, panels, precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from helpers.losses_oracle import assert_same, leaves, random_columns
from helpers.ragged_batches import make_rows, union_input
from inbatch.errors import ConfigError
from inbatch.losses import InBatchKL, LossInput, MultipleNegativesRanking, WeightedSum
from inbatch.losses.softmax import walk
from inbatch.losses.softmax.soft_cross_entropy import soft_cross_entropy
from inbatch.losses.softmax.soft_targets import SoftSums, merge_sums, no_sums

ROWS, DIM, GUIDE_DIM = 23, 6, 9
ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
DIRECTIONS = [ALL[:1], ALL[:2], ALL[:3], ALL]


def dense(loss: InBatchKL, inputs: LossInput, columns: Sequence[Tensor]) -> Tensor:
    """The same by whole matrices and autograd; of rows with lists the directions of queries."""
    assert inputs.guide is not None

    def logits(texts: Sequence[Tensor], temperature: float, is_cosine: bool) -> Tensor:
        texts = [normalize(t, dim=1) if is_cosine else t for t in texts]
        query, *documents = texts
        own = torch.eye(len(query), dtype=torch.bool)
        found = [query @ d.T for d in documents]
        if "query_to_query" in loss.directions:
            found.append((query @ query.T).masked_fill(own, -torch.inf))
        if "doc_to_query" in loss.directions:
            found.append(documents[0] @ query.T)
        if "doc_to_doc" in loss.directions:
            found += [(documents[0] @ d.T).masked_fill(own, -torch.inf) for d in documents]
        return torch.cat(found, 1) / temperature

    student = logits(columns, loss.student_temperature, loss.similarity == "cosine")
    teacher = logits([g.double() for g in inputs.guide], loss.teacher_temperature, is_cosine=True)
    log_q, log_p = student.log_softmax(1), teacher.log_softmax(1)
    gone = student.isinf()
    terms = log_p.exp() * (log_p.masked_fill(gone, 0) - log_q.masked_fill(gone, 0))
    return terms.sum(1)[inputs.rows].mean()


def example(num_columns: int = 3, *, rows: slice = slice(0, ROWS), seed: int = 0) -> LossInput:
    guide = random_columns(num_columns, ROWS, GUIDE_DIM, seed=seed + 7)
    return LossInput(
        tuple(random_columns(num_columns, ROWS, DIM, seed=seed)), rows, guide=tuple(guide)
    )


def both(loss: InBatchKL, inputs: LossInput) -> tuple[tuple[Tensor, list[Tensor]], ...]:
    """Value and gradients of the loss and of the reference."""
    mine, reference = leaves(inputs.columns), leaves(inputs.columns)
    values = (
        loss(replace(inputs, columns=tuple(mine))).loss,
        dense(loss, inputs, reference),
    )
    return tuple(
        (value.detach(), list(torch.autograd.grad(value, columns)))
        for value, columns in zip(values, (mine, reference))
    )


@pytest.mark.parametrize("rows", [slice(0, ROWS), slice(5, 19), slice(22, 23)])
@pytest.mark.parametrize("temperatures", [(0.05, 0.05), (0.02, 0.1), (1.0, 0.02)])
@pytest.mark.parametrize("directions", DIRECTIONS, ids="-".join)
def test_equals_dense(
    directions: tuple[str, ...], temperatures: tuple[float, float], rows: slice
) -> None:
    loss = InBatchKL(*temperatures, directions=directions)  # type: ignore[arg-type]
    for num_columns in (2, 4):
        assert_same(*both(loss, example(num_columns, rows=rows)), tolerance=1e-11)


def test_dot_products_far_beyond_the_range_of_exp() -> None:
    inputs = example()
    inputs = replace(inputs, columns=tuple(30 * column for column in inputs.columns))
    found, wanted = both(InBatchKL(similarity="dot", directions=ALL), inputs)
    assert wanted[0] > 1000
    assert_same(found, wanted, tolerance=1e-10)


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("panel_rows", [1, 7, 23])
def test_panels_of_any_size(monkeypatch: pytest.MonkeyPatch, panel_rows: int, share: float) -> None:
    monkeypatch.setitem(walk.MIN_PANEL_ROWS, "cpu", 1)
    loss, inputs = InBatchKL(directions=ALL), example()
    mine, reference = leaves(inputs.columns), leaves(inputs.columns)
    blocks = loss._blocks(inputs)
    value, _ = soft_cross_entropy(
        replace(inputs, columns=tuple(mine)),
        blocks,
        temperature=0.05,
        teacher_temperature=0.05,
        share=share,
        panel_bytes=panel_rows * (2 * len(blocks) + 1) * ROWS * 8,
    )
    contrastive = MultipleNegativesRanking(directions=ALL)
    wanted = share * dense(loss, inputs, reference)
    wanted = wanted + (1 - share) * contrastive(replace(inputs, columns=tuple(reference))).loss
    assert_same(
        (value.detach(), list(torch.autograd.grad(value, mine))),
        (wanted.detach(), list(torch.autograd.grad(wanted, reference))),
        tolerance=1e-11,
    )


def test_one_row_has_nothing_to_learn_without_negatives() -> None:
    inputs = LossInput(
        tuple(random_columns(2, 1, DIM)), slice(0, 1), guide=tuple(random_columns(2, 1, DIM))
    )
    (value, gradients), wanted = both(InBatchKL(), inputs)
    assert value == 0
    assert_same((value, gradients), wanted)


@pytest.mark.parametrize("bounds", [(0, 10), (0, 3, 10), (0, 1, 6, 10)])
def test_rows_with_lists_on_any_ranks(bounds: tuple[int, ...]) -> None:
    rows = make_rows(10)
    num_texts = sum(1 + len(p) + len(n) for _, p, n in rows)
    values, guide = random_columns(1, num_texts, DIM)[0], random_columns(1, num_texts, 4, seed=3)[0]
    loss = InBatchKL(teacher_temperature=0.1, directions=ALL[:2])
    whole = union_input(rows, values, guide)
    reference = leaves(whole.columns)
    wanted = dense(loss, whole, reference)
    assert whole.documents is not None
    total, gradients = (
        torch.zeros((), dtype=torch.float64),
        [torch.zeros_like(c) for c in reference],
    )
    counts, positives = whole.documents.counts, whole.documents.positives
    for start, stop in pairwise(bounds):
        documents = whole.documents._replace(
            first=int(counts[:start].sum()),
            counts=counts[start:stop],
            positives=positives[start:stop],
        )
        columns = leaves(whole.columns)
        part = replace(whole, columns=tuple(columns), rows=slice(start, stop), documents=documents)
        value = loss(part).loss * (stop - start) / len(rows)
        total += value.detach()
        for gradient, own in zip(gradients, torch.autograd.grad(value, columns)):
            gradient += own
    assert_same(
        (total, gradients),
        (wanted.detach(), list(torch.autograd.grad(wanted, reference))),
        tolerance=1e-11,
    )


def test_rows_with_lists_take_the_directions_of_queries() -> None:
    assert InBatchKL(directions=ALL[:2]).takes_lists
    values = random_columns(1, 16, DIM)[0]
    with pytest.raises(ConfigError, match="takes no lists"):
        InBatchKL(directions=ALL)(union_input(make_rows(4), values, values))


def test_float32_is_as_exact_as_its_products() -> None:
    inputs = example()
    loss = InBatchKL(0.02, 0.02)
    exact, _ = both(loss, inputs)
    single = replace(
        inputs,
        columns=tuple(c.float() for c in inputs.columns),
        guide=tuple(g.float() for g in inputs.guide or ()),
    )
    columns = leaves(single.columns)
    value = loss(replace(single, columns=tuple(columns))).loss
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.detach().double(), exact[0], rtol=1e-5, atol=1e-6)
    for found, wanted in zip(torch.autograd.grad(value, columns), exact[1]):
        torch.testing.assert_close(
            found.double(), wanted, rtol=0, atol=2e-5 * float(wanted.abs().max())
        )


def test_sums_merge_in_any_order() -> None:
    draws = torch.Generator().manual_seed(0)
    z, g = 40 * torch.randn(2, 5, 12, dtype=torch.float64, generator=draws)

    def sums(part: slice) -> SoftSums:
        peak, teacher_peak = z[:, part].amax(1), g[:, part].amax(1)
        e_z = (z[:, part] - peak[:, None]).exp()
        e_g = (g[:, part] - teacher_peak[:, None]).exp()
        between = (g[:, part] - teacher_peak[:, None]) - (z[:, part] - peak[:, None])
        return SoftSums(peak, e_z.sum(1), teacher_peak, e_g.sum(1), (e_g * between).sum(1))

    parts = [no_sums(z[:, 0]), sums(slice(0, 1)), sums(slice(1, 8)), sums(slice(8, 12))]
    for found in (merge_sums(parts), merge_sums([merge_sums(parts[::-1][:2]), *parts[:2]])):
        for value, wanted in zip(found, sums(slice(0, 12))):
            torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12)


def test_a_student_that_has_the_distribution_of_its_teacher_has_no_loss() -> None:
    columns = tuple(random_columns(3, ROWS, DIM))
    inputs = LossInput(columns, slice(0, ROWS), guide=tuple(3 * c for c in columns))
    (value, gradients), _ = both(InBatchKL(directions=ALL), inputs)
    assert abs(float(value)) < 1e-12
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-12


@pytest.mark.parametrize(
    "options",
    [
        {"student_temperature": 0.0},
        {"teacher_temperature": -1.0},
        {"directions": ["doc_to_query"]},
        {"similarity": "euclidean"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        InBatchKL(**options)  # type: ignore[arg-type]


def test_metrics_are_of_the_owned_rows() -> None:
    inputs = example(rows=slice(3, 9))
    found = InBatchKL(0.1, 0.2)(inputs).metrics
    units = [normalize(c, dim=1)[3:9] for c in inputs.columns]
    assert inputs.guide is not None
    teacher = [normalize(g, dim=1) for g in inputs.guide]
    p = torch.cat([teacher[0] @ t.T for t in teacher[1:]], 1).div(0.2).softmax(1)
    torch.testing.assert_close(found["positive_similarity"], (units[0] * units[1]).sum(1).mean())
    wanted = p[range(3, 9), range(3, 9)].mean()
    torch.testing.assert_close(found["teacher_positive_share"], wanted)
    assert set(WeightedSum([InBatchKL()])(inputs).metrics) >= {f"InBatchKL/{key}" for key in found}
