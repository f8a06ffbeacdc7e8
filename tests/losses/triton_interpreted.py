"""The Triton kernels in Triton's interpreter, against the tiled form and against dense matrices.

`test_triton` runs this file in a process of its own with TRITON_INTERPRET=1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_losses_streaming import BLOCKS, LargestTensor, dense
from torch import Tensor
from torch.nn.functional import normalize

from helpers.half_products import matrix_units
from helpers.losses_oracle import Result, leaves, random_columns
from inbatch.losses import GIST, LossInput, MultipleNegativesRanking
from inbatch.losses.directions import DIRECTIONS
from inbatch.losses.filters import guide_filter
from inbatch.losses.softmax import implementation, triton_panels, walk
from inbatch.losses.softmax.cross_entropy import similarity_metrics, streamed_cross_entropy
from inbatch.losses.softmax.panels import Block, GuideFilter, Weights
from inbatch.losses.softmax.triton_panels import TritonArithmetic
from inbatch.losses.softmax.walk import StreamStats

# Global rows, dimension, guide dimension (0: no guide), owned rows; a step takes 32 candidates, rows begin at
# multiples of 16. Less than a step; more; parts of one row; exact steps; as few as can be.
SIZES = [
    (7, 24, 5, slice(0, 5)),
    (65, 48, 100, slice(40, 57)),
    (65, 100, 0, slice(0, 33)),
    (33, 24, 0, slice(32, 33)),
    (64, 128, 64, slice(48, 64)),
    (1, 16, 0, slice(0, 1)),
    (2, 3, 0, slice(1, 2)),
]
MANY_NEGATIVES = [
    *BLOCKS["gist"],
    Block(0, 3, "plain"),
    Block(0, 4, "plain"),
    Block(1, 4, "masked"),
]
ALL_BLOCKS = {**BLOCKS, "many_negatives": MANY_NEGATIVES}


def floats(num: int, rows: int, dim: int, *, seed: int = 0) -> list[Tensor]:
    return [column.float() for column in random_columns(num, rows, dim, seed=seed)]


def example_guide(num: int, rows: int, dim: int, **options: Any) -> GuideFilter:
    options = {"margin_strategy": "absolute", "margin": 0.0} | options
    return guide_filter(floats(num, rows, dim, seed=7), **options)


def run(
    columns: list[Tensor], blocks: list[Block], implementation: str = "triton", **options: Any
) -> tuple[Result, StreamStats]:
    mine = leaves(columns)
    value, stats = streamed_cross_entropy(mine, blocks, implementation=implementation, **options)
    grads = torch.autograd.grad(value, mine, allow_unused=True, materialize_grads=True)
    return (value.detach(), list(grads)), stats


def run_dense(columns: list[Tensor], blocks: list[Block], **options: Any) -> Result:
    """In float64, rounded to float32 at the end."""
    guide: GuideFilter | None = options.pop("guide")
    if guide is not None:
        units = tuple(column.double() for column in guide.columns)
        guide = GuideFilter(units, guide.threshold.double())
    exact = leaves([column.double() for column in columns])
    value = dense(exact, blocks, guide=guide, strength=options.pop("hardness_strength"), **options)
    grads = torch.autograd.grad(value, exact, allow_unused=True, materialize_grads=True)
    return value.detach().float(), [grad.float() for grad in grads]


def assert_close(actual: Result, expected: Result, *, tolerance: float = 1e-5) -> None:
    """Value and gradients agree, relative to the value and to the largest entry of each column."""
    torch.testing.assert_close(actual[0], expected[0], rtol=tolerance, atol=tolerance / 10)
    for mine, reference in zip(actual[1], expected[1], strict=True):
        atol = tolerance * float(reference.abs().max())
        torch.testing.assert_close(mine, reference, rtol=0, atol=atol)


def assert_same_statistics(mine: StreamStats, reference: StreamStats) -> None:
    torch.testing.assert_close(mine.positive, reference.positive, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine.hardest, reference.hardest, rtol=1e-5, atol=1e-6)
    assert mine.filtered.dtype == torch.int64
    assert torch.equal(mine.filtered, reference.filtered)
    assert not any(tensor.requires_grad for tensor in mine)


CASES = [(name, SIZES[k % len(SIZES)]) for k, name in enumerate([*ALL_BLOCKS, "gist", "gist"])]


@pytest.mark.parametrize(("name", "size"), CASES, ids=str)
def test_equals_tiled_and_dense(name: str, size: tuple[int, int, int, slice]) -> None:
    num_global, dim, guide_dim, rows = size
    columns, blocks = floats(5, num_global, dim), ALL_BLOCKS[name]
    options = {
        "rows": rows,
        "temperature": 0.1,
        "hardness_strength": 3.0,
        "guide": example_guide(5, num_global, guide_dim) if guide_dim else None,
    }
    mine, stats = run(columns, blocks, **options)
    tiled, reference = run(columns, blocks, "tiled", **options)
    assert_close(mine, tiled)
    assert_close(mine, run_dense(columns, blocks, **options))
    assert_same_statistics(stats, reference)
    assert bool(stats.filtered) == bool(guide_dim)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", [True, False])
def test_16_bits_equal_the_tiled_form(dtype: torch.dtype, normalize: bool) -> None:
    columns = [column.to(dtype) for column in random_columns(3, 20, 24)]
    guide = [column.half() for column in random_columns(3, 20, 10, seed=7)]
    with matrix_units():
        options: dict[str, Any] = {
            "rows": slice(1, 19),
            "temperature": 0.05 if normalize else 1.0,
            "normalize": normalize,
            "hardness_strength": 3.0,
            "guide": guide_filter(guide, margin_strategy="absolute", margin=0.0),
        }
        mine, stats = run(columns, BLOCKS["hardened"], **options)
        tiled, reference = run(columns, BLOCKS["hardened"], "tiled", **options)
    assert stats.filtered > 0
    torch.testing.assert_close(mine[0], tiled[0], rtol=1e-5, atol=1e-6)
    for one, other in zip(mine[1], tiled[1]):
        torch.testing.assert_close(
            one, other, rtol=0, atol=2 * torch.finfo(dtype).eps * float(other.abs().max())
        )
    assert_same_statistics(stats, reference)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("normalize", [True, False])
def test_gradient_of_a_temperature(dtype: torch.dtype, limit: float, normalize: bool) -> None:
    columns = [column.to(dtype) for column in random_columns(3, 20, 24)]

    def found(columns: list[Tensor], implementation: str, temperature: Tensor) -> Tensor:
        value, _ = streamed_cross_entropy(
            columns,
            BLOCKS["gist"],
            rows=slice(1, 19),
            temperature=temperature.requires_grad_(),
            normalize=normalize,
            implementation=implementation,  # type: ignore[arg-type]
        )
        return torch.stack([value.detach(), *torch.autograd.grad(value, temperature)]).double()

    start = torch.tensor(0.05 if normalize else 1.0, dtype=torch.float64)
    exact = found([column.double() for column in columns], "tiled", start)
    with matrix_units():
        for implementation in ("tiled", "triton"):
            mine = found(columns, implementation, start.detach().float())
            torch.testing.assert_close(mine[0], exact[0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(mine[1], exact[1], rtol=limit, atol=0)


@pytest.mark.parametrize(
    "loss",
    [
        MultipleNegativesRanking(directions=DIRECTIONS, mask_margin=0.1, mask_duplicates=True),
        MultipleNegativesRanking(similarity="dot", mask_margin=0.5, temperature=1.0),
        MultipleNegativesRanking(
            directions=DIRECTIONS[:3:2],
            partition_mode="per_direction",
            mask_margin=0.2,
            mask_margin_strategy="relative",
        ),
        GIST(temperature=0.1, self_guided=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mask_by_own_scores(loss: GIST | MultipleNegativesRanking, dtype: torch.dtype) -> None:
    columns = leaves([column.to(dtype) for column in random_columns(3, 20, 24)])
    ids = torch.randint(0, 54, (3, 20), generator=torch.Generator().manual_seed(3)).unbind(0)
    inputs = LossInput(tuple(columns), slice(1, 19), text_ids=ids)
    found = []
    with matrix_units():
        for how in ("triton", "tiled"):
            output = replace(loss, implementation=how)(inputs)
            gradients = torch.autograd.grad(output.loss, columns)
            found.append((output.metrics["filtered_share"], output.loss, torch.cat(gradients)))
    (share, value, gradient), (tiled_share, tiled, wanted) = found
    assert 0.01 < share < 0.9
    assert torch.equal(share, tiled_share)
    torch.testing.assert_close(value, tiled, rtol=1e-5, atol=1e-6)
    assert (gradient - wanted).norm() < 2 * torch.finfo(torch.bfloat16).eps * wanted.norm()


@pytest.mark.parametrize("loss", [GIST, MultipleNegativesRanking])
def test_known_positives_are_no_negatives(loss: type[GIST | MultipleNegativesRanking]) -> None:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 60, (3, 20), generator=generator).unbind(0)
    columns = tuple(floats(3, 20, 24))
    inputs = LossInput(columns, slice(2, 19), None, columns, ids)
    options: dict[str, Any] = {"temperature": 0.1, "mask_duplicates": True}
    mine, tiled = (loss(implementation=how, **options)(inputs) for how in ("triton", "tiled"))
    plain = loss(temperature=0.1)(inputs)
    torch.testing.assert_close(mine.loss, tiled.loss, rtol=1e-5, atol=1e-6)
    assert abs(float(plain.loss - tiled.loss)) > 1e-3


class OneOfThree:
    """A ring as one rank sees it: the rows of two others come by."""

    def __init__(self, others: list[list[Tensor]]) -> None:
        self.counts, self.rank, self._others = (0, 0, 0), 1, others

    def hops(self, tensors: list[Tensor]) -> Iterator[tuple[int, list[Tensor]]]:
        yield 1, tensors
        yield 0, self._others[0]
        yield 2, self._others[1]

    def pass_on(self, tensor: Tensor, owner: int) -> OneOfThree:
        self.passed = tensor
        return self

    def wait(self) -> list[Tensor]:
        return [torch.zeros(2, 9, 24)] if self.passed.shape[1] != 9 else [self.passed]


def test_a_ring_equals_the_tiled_one() -> None:
    """Visitors have no own entries; `test_ring` has real ranks, in the tiled form."""
    units = torch.stack([normalize(c, dim=1) for c in floats(2, 27, 24)])
    others = [[units[:, 9:18]], [units[:, 18:]]]

    def run_ring(implementation: str) -> tuple[Tensor, ...]:
        mine = leaves(list(units[:, :9].unbind(0)))
        ring: Any = OneOfThree(others)
        value, stats = streamed_cross_entropy(
            mine,
            BLOCKS["gist"][:3],
            rows=slice(0, 9),
            temperature=0.1,
            implementation=implementation,
            ring=ring,
        )
        return value.detach(), *torch.autograd.grad(value, mine), stats.hardest

    for one, other in zip(run_ring("triton"), run_ring("tiled"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_candidates_that_tie_with_the_positive_are_kept() -> None:
    """Copies of one positive score the threshold itself, up to rounding."""
    query, positive = (column.expand(40, 384).contiguous() for column in floats(2, 1, 384))
    guide = guide_filter([query, positive], margin_strategy="absolute", margin=0.0)
    columns = floats(2, 40, 24)
    _, stats = run(columns, BLOCKS["one"], rows=slice(3, 38), temperature=0.1, guide=guide)
    assert int(stats.filtered) == 0


def test_the_guide_removes_what_is_above_the_threshold_not_what_is_at_it() -> None:
    units = torch.eye(4)[[0, 0, 1, 2]]  # all scores are exactly 0 or 1
    options = {"rows": slice(0, 4), "temperature": 1.0}
    for threshold, expected in ((1.0, 0), (0.9999, 2), (0.0, 2), (-0.0001, 12)):
        guide = GuideFilter((units, units), torch.full((4,), threshold))
        _, stats = run(floats(2, 4, 6), BLOCKS["one"], guide=guide, **options)
        assert int(stats.filtered) == expected


def test_nothing_but_the_positive_is_left() -> None:
    columns, guide = floats(3, 23, 24), example_guide(3, 23, 5)
    strict = GuideFilter(guide.columns, torch.full_like(guide.threshold, -2))
    (value, grads), stats = run(
        columns, BLOCKS["gist"], rows=slice(0, 23), temperature=0.01, guide=strict
    )
    assert float(value) == 0
    assert not any(grad.any() for grad in grads)
    assert int(stats.filtered) == 23 * (4 * 23 - 3)
    assert similarity_metrics(stats)["hardest_negative_similarity"].isnan()


def test_some_rows_have_no_negative() -> None:
    columns, guide = floats(3, 23, 24), example_guide(3, 23, 5)
    threshold = torch.where(torch.arange(23) % 3 == 0, -2.0, guide.threshold)
    options = {
        "rows": slice(0, 23),
        "temperature": 0.05,
        "guide": GuideFilter(guide.columns, threshold),
    }
    mine, stats = run(columns, BLOCKS["gist"], **options)
    tiled, reference = run(columns, BLOCKS["gist"], "tiled", **options)
    assert_close(mine, tiled)
    assert_same_statistics(stats, reference)
    assert torch.equal(stats.hardest.isinf(), torch.arange(23) % 3 == 0)


def test_dot_products_far_beyond_the_range_of_exp() -> None:
    columns = [30 * column for column in floats(3, 23, 24)]
    options = {"rows": slice(0, 23), "temperature": 0.05, "normalize": False}
    mine, _ = run(columns, BLOCKS["gist"], **options)
    assert mine[0] > 1000
    assert_close(mine, run(columns, BLOCKS["gist"], "tiled", **options)[0])


@pytest.mark.parametrize("programs", [1, 100])
def test_parts_and_panels_change_nothing(monkeypatch: pytest.MonkeyPatch, programs: int) -> None:
    monkeypatch.setitem(walk.MIN_PANEL_ROWS, "cpu", 1)
    columns, guide = floats(3, 70, 24), example_guide(3, 70, 24)
    options = {"rows": slice(40, 49), "temperature": 0.05, "guide": guide}
    expected, reference = run(columns, BLOCKS["hardened"], "tiled", **options)
    launch = triton_panels.INTERPRETED._replace(programs=programs)
    monkeypatch.setattr(triton_panels, "INTERPRETED", launch)
    panel_bytes = 4 * 4 * 70 * 4  # four rows
    mine, stats = run(columns, BLOCKS["hardened"], panel_bytes=panel_bytes, **options)
    assert_close(mine, expected)
    assert_same_statistics(stats, reference)


def test_gradients_only_where_wanted_and_scaled() -> None:
    columns = floats(3, 23, 24)
    options = {"rows": slice(4, 20), "temperature": 0.05}
    (_, grads), _ = run(columns, BLOCKS["gist"], **options)
    alone = leaves(columns)
    alone[0].requires_grad_(False)
    with LargestTensor() as operations:
        part, _ = streamed_cross_entropy(alone, BLOCKS["gist"], implementation="triton", **options)
    assert operations.num_additions == 4  # p is a candidate once and both in its own block; n once
    (1000 * part).backward()
    assert alone[0].grad is None
    for column, grad in zip(alone[1:], grads[1:]):
        torch.testing.assert_close(column.grad, 1000 * grad)


def test_runs_repeat_bit_by_bit() -> None:
    columns, guide = floats(3, 20, 24), example_guide(3, 20, 24)
    options = {"rows": slice(1, 19), "temperature": 0.02, "guide": guide}
    once, again = (run(columns, BLOCKS["gist"], **options)[0] for _ in range(2))
    assert torch.equal(once[0], again[0])
    assert all(map(torch.equal, once[1], again[1]))


def test_double_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="use the tiled form for float64"):
        run(random_columns(2, 4, 6), BLOCKS["one"], rows=slice(0, 4), temperature=1.0)


def test_the_trial_finds_kernels_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    assert implementation.trial(device, num_rows=20) == ""
    right = TritonArithmetic.weigh

    def wrong(*args: Any) -> Weights:
        return Weights(right(*args).tile * 1.01)

    monkeypatch.setattr(TritonArithmetic, "weigh", wrong)
    assert implementation.trial(device, num_rows=20).startswith("results differ by 0.0")
