"""The Triton kernels in Triton's interpreter, against the tiled form and against dense matrices.

`test_triton` runs this file in a process of its own with TRITON_INTERPRET=1.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_losses_streaming import BLOCKS, LargestTensor, dense
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.losses_oracle import Result, leaves, random_columns
from inbatch.losses.gist import guide_filter
from inbatch.losses.softmax import triton_loss, walk
from inbatch.losses.softmax.cross_entropy import similarity_metrics, streamed_cross_entropy
from inbatch.losses.softmax.panels import Block, GuideFilter
from inbatch.losses.softmax.walk import StreamStats

# Global rows, dimension, guide dimension (0: no guide), owned rows; tiles have 16 rows, 32
# candidates, 64 dimensions. Less than a tile; more; splits of one row; exact tiles.
SIZES = [
    (7, 24, 5, slice(0, 5)),
    (65, 48, 100, slice(40, 57)),
    (65, 100, 0, slice(0, 33)),
    (33, 24, 0, slice(32, 33)),
    (64, 128, 64, slice(32, 64)),
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


@pytest.mark.parametrize("name", ALL_BLOCKS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_tiled_and_dense(size: tuple[int, int, int, slice], name: str) -> None:
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


@pytest.mark.parametrize("strategy", ["absolute", "relative"])
@pytest.mark.parametrize("margin", [-0.2, 0.1, 0.7])
def test_margins(strategy: str, margin: float) -> None:
    columns, blocks = floats(3, 40, 24), BLOCKS["gist"]
    guide = example_guide(3, 40, 24, margin_strategy=strategy, margin=margin)
    options = {"rows": slice(3, 18), "temperature": 0.05, "guide": guide}
    mine, stats = run(columns, blocks, **options)
    tiled, reference = run(columns, blocks, "tiled", **options)
    assert_close(mine, tiled)
    assert_same_statistics(stats, reference)
    assert stats.filtered > 0


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


def test_ranks_average_to_the_global_batch() -> None:
    columns, guide = floats(3, 31, 24), example_guide(3, 31, 24)
    options = {"temperature": 0.05, "guide": guide}
    whole, _ = run(columns, BLOCKS["gist"], rows=slice(0, 31), **options)
    bounds = [(0, 10), (10, 20), (20, 31)]
    ranks = [run(columns, BLOCKS["gist"], rows=slice(*bound), **options)[0] for bound in bounds]
    weights = [(stop - start) / 31 for start, stop in bounds]
    value = sum(weight * rank[0] for weight, rank in zip(weights, ranks))
    grads = [sum(w * rank[1][k] for w, rank in zip(weights, ranks)) for k in range(3)]
    assert_close((value, grads), whole)


@pytest.mark.parametrize("programs", [1, 2, 100])
@pytest.mark.parametrize("panel_rows", [4, 64])
def test_splits_and_panels_change_nothing(
    monkeypatch: pytest.MonkeyPatch, programs: int, panel_rows: int
) -> None:
    monkeypatch.setitem(walk.MIN_PANEL_ROWS, "cpu", 1)
    columns, guide = floats(3, 70, 24), example_guide(3, 70, 24)
    options = {"rows": slice(40, 49), "temperature": 0.05, "guide": guide}
    expected, reference = run(columns, BLOCKS["hardened"], "tiled", **options)
    monkeypatch.setattr(triton_loss, "INTERPRETER_PROGRAMS", programs)
    panel_bytes = panel_rows * 70 * 4
    mine, stats = run(columns, BLOCKS["hardened"], panel_bytes=panel_bytes, **options)
    assert_close(mine, expected)
    assert_same_statistics(stats, reference)


def test_gradients_only_where_wanted_and_scaled() -> None:
    columns = floats(3, 23, 24)
    options = {"rows": slice(4, 20), "temperature": 0.05}
    (value, grads), _ = run(columns, BLOCKS["gist"], **options)
    alone = leaves(columns)
    alone[0].requires_grad_(False)
    with LargestTensor() as operations:
        part, _ = streamed_cross_entropy(alone, BLOCKS["gist"], implementation="triton", **options)
        assert operations.num_additions == 0
        (1000 * part).backward()
    assert operations.num_additions == 4  # p is a candidate once and both in its own block; n once
    assert alone[0].grad is None
    for column, grad in zip(alone[1:], grads[1:]):
        torch.testing.assert_close(column.grad, 1000 * grad)
    with torch.no_grad():
        quiet, _ = streamed_cross_entropy(
            leaves(columns), BLOCKS["gist"], implementation="triton", **options
        )
    assert not quiet.requires_grad
    assert torch.equal(quiet, value)


def test_runs_repeat_bit_by_bit() -> None:
    columns, guide = floats(3, 40, 24), example_guide(3, 40, 24)
    options = {"rows": slice(4, 20), "temperature": 0.02, "guide": guide}
    once, again = (run(columns, BLOCKS["gist"], **options)[0] for _ in range(2))
    assert torch.equal(once[0], again[0])
    assert all(map(torch.equal, once[1], again[1]))


class LargestStorage(TorchDispatchMode):
    """Notes the largest tensor in bytes: the interpreter copies each argument as bytes."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor):
                self.num_bytes = max(self.num_bytes, value.nbytes)
        return out


@pytest.mark.parametrize("num_global", [100, 200])
def test_memory_is_one_panel_of_one_block(num_global: int) -> None:
    columns, blocks = leaves(floats(2, num_global, 4)), BLOCKS["gist"][:2]
    guide, num_rows = example_guide(2, num_global, 4), 32
    with LargestStorage() as largest:
        value, _ = streamed_cross_entropy(
            columns,
            blocks,
            rows=slice(0, num_rows),
            temperature=0.05,
            guide=guide,
            panel_bytes=1,
            implementation="triton",
        )
        # Columns; and lse, hardest and positive of each block and of the 2 splits of a row.
        assert largest.num_bytes == 4 * max(4 * num_global, 3 * 2 * 2 * num_rows)
        value.backward()
    assert largest.num_bytes == 4 * walk.MIN_PANEL_ROWS["cpu"] * num_global
    assert num_rows > walk.MIN_PANEL_ROWS["cpu"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_do_not_reach_the_products(dtype: torch.dtype) -> None:
    columns = [column.to(dtype) for column in floats(3, 23, 24)]
    options = {"rows": slice(0, 23), "temperature": 0.01}
    exact, _ = run([column.float() for column in columns], BLOCKS["gist"], "tiled", **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine, _ = run(columns, BLOCKS["gist"], **options)
    assert mine[0].dtype == torch.float32
    assert all(grad.dtype == dtype for grad in mine[1])
    rounded = exact[0], [grad.to(dtype).float() for grad in exact[1]]
    assert_close((mine[0], [grad.float() for grad in mine[1]]), rounded, tolerance=1e-2)
    torch.testing.assert_close(mine[0], exact[0], rtol=1e-5, atol=1e-5)


def test_double_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="use the tiled form for float64"):
        run(random_columns(2, 4, 6), BLOCKS["one"], rows=slice(0, 4), temperature=1.0)
