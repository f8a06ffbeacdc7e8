"""The panel sweep against dense matrices: values, gradients, memory, precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.losses_oracle import assert_same, leaves, random_columns
from inbatch.losses.softmax import walk
from inbatch.losses.softmax.cross_entropy import similarity_metrics, streamed_cross_entropy
from inbatch.losses.softmax.panels import Block, GuideFilter

ROWS, DIM = 23, 6
BLOCKS = {
    "one": [Block(0, 1, "positive")],
    "gist": [
        Block(0, 1, "positive"),
        Block(0, 0, "masked"),
        Block(1, 1, "masked"),
        Block(0, 2, "plain"),
    ],
    "positive_last": [Block(1, 2, "masked"), Block(1, 0, "plain"), Block(0, 1, "positive")],
    "hardened": [
        Block(0, 1, "positive", "others"),
        Block(0, 2, "plain", "own"),
        Block(1, 2, "plain", "all"),
        Block(0, 0, "masked", "all"),
    ],
}


def dense(
    columns: list[Tensor],
    blocks: list[Block],
    *,
    rows: slice,
    temperature: float,
    is_cosine: bool = True,
    strength: float = 0.0,
    guide: GuideFilter | None = None,
) -> Tensor:
    """The same by whole score matrices and autograd."""
    units = [normalize(column, dim=1) if is_cosine else column for column in columns]
    own = torch.eye(len(units[0]), dtype=torch.bool)
    logits, positive = [], None
    for block in blocks:
        scores = units[block.rows] @ units[block.candidates].T
        hardened = {"none": own & ~own, "own": own, "others": ~own, "all": own | ~own}
        bonus = strength * scores.detach() * hardened[block.hardened]
        block_logits = scores / temperature + bonus
        if block.own == "positive":
            block_logits = torch.where(own, scores / temperature, block_logits)
            positive = block_logits.diagonal()
        gone = own if block.own == "masked" else own & ~own
        if guide is not None:
            theirs = guide.columns[block.rows] @ guide.columns[block.candidates].T
            false_negative = theirs > guide.threshold[:, None]
            is_pair = {block.rows, block.candidates} == {0, 1}  # which are query and positive
            gone = gone | (false_negative & ~(own & is_pair))
        logits.append(block_logits.masked_fill(gone, -torch.inf))
    return (torch.cat(logits, dim=1).logsumexp(1) - positive)[rows].mean()


def example_guide(columns: int = 3) -> GuideFilter:
    units = tuple(normalize(c, dim=1) for c in random_columns(columns, ROWS, 5, seed=7))
    # A row's own query and positive tie with the threshold in every block that pairs them.
    return GuideFilter(units, (units[0] * units[1]).sum(1) + 1e-9)


@pytest.mark.parametrize("panel_rows", [1, 7, 22, 23, 64])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("rows", [slice(0, ROWS), slice(5, 19), slice(22, 23)])
def test_equals_dense(
    monkeypatch: pytest.MonkeyPatch, name: str, rows: slice, guided: bool, panel_rows: int
) -> None:
    monkeypatch.setitem(walk.MIN_PANEL_ROWS, "cpu", 1)
    columns, blocks = random_columns(3, ROWS, DIM), BLOCKS[name]
    guide = example_guide() if guided else None
    mine, reference = leaves(columns), leaves(columns)
    value, stats = streamed_cross_entropy(
        mine,
        blocks,
        rows=rows,
        temperature=0.1,
        hardness_strength=3.0,
        guide=guide,
        panel_bytes=panel_rows * len(blocks) * ROWS * 8,
    )
    expected = dense(reference, blocks, rows=rows, temperature=0.1, strength=3.0, guide=guide)
    grads = torch.autograd.grad(value, mine, allow_unused=True, materialize_grads=True)
    expected_grads = torch.autograd.grad(
        expected, reference, allow_unused=True, materialize_grads=True
    )
    assert_same((value, list(grads)), (expected, list(expected_grads)))
    assert stats.positive.shape == stats.hardest.shape == (rows.stop - rows.start,)
    assert bool(stats.filtered) == guided


def test_dot_products_far_beyond_the_range_of_exp() -> None:
    columns = [30 * column for column in random_columns(3, ROWS, DIM)]
    mine, reference = leaves(columns), leaves(columns)
    options = {"rows": slice(0, ROWS), "temperature": 0.05}
    value, _ = streamed_cross_entropy(mine, BLOCKS["gist"], normalize=False, **options)
    expected = dense(reference, BLOCKS["gist"], is_cosine=False, **options)
    assert value > 1000
    grads = list(torch.autograd.grad(value, mine))
    assert_same((value, grads), (expected, list(torch.autograd.grad(expected, reference))))


def test_gradcheck() -> None:
    columns = leaves(random_columns(3, 5, 4))
    guide = GuideFilter(
        tuple(normalize(c, dim=1) for c in random_columns(3, 5, 4, seed=1)),
        torch.full((5,), 0.6, dtype=torch.float64),
    )

    def value(*columns: Tensor) -> Tensor:
        return streamed_cross_entropy(
            columns, BLOCKS["gist"], rows=slice(1, 4), temperature=0.2, guide=guide
        )[0]

    assert torch.autograd.gradcheck(value, columns)


def test_statistics() -> None:
    columns, guide = random_columns(3, ROWS, DIM), example_guide()
    blocks = BLOCKS["gist"]
    _, stats = streamed_cross_entropy(
        columns, blocks, rows=slice(2, 9), temperature=0.3, guide=guide
    )
    units = [normalize(column, dim=1) for column in columns]
    own = torch.eye(ROWS, dtype=torch.bool)
    scores, filtered = [], 0
    for block in blocks:
        gone = guide.columns[block.rows] @ guide.columns[block.candidates].T
        gone = gone > guide.threshold[:, None]
        if block.own != "plain":
            gone = gone & ~own
        filtered += int(gone[2:9].sum())
        kept = ~gone if block.own == "plain" else ~gone & ~own
        if block.rows == 0:
            score = units[0] @ units[block.candidates].T
            scores.append(score.masked_fill(~kept, -torch.inf))
    torch.testing.assert_close(stats.positive, (units[0] * units[1]).sum(1)[2:9])
    torch.testing.assert_close(stats.hardest, torch.cat(scores, 1).amax(1)[2:9])
    assert int(stats.filtered) == filtered > 0
    assert not any(tensor.requires_grad for tensor in stats)


def test_equal_rows_share_the_softmax() -> None:
    """Ties: with all texts equal, every candidate has the positive's score."""
    columns = leaves([torch.ones(ROWS, DIM, dtype=torch.float64)] * 2)
    value, stats = streamed_cross_entropy(
        columns, BLOCKS["one"], rows=slice(0, ROWS), temperature=0.01
    )
    torch.testing.assert_close(value, torch.tensor(float(ROWS)).double().log())
    torch.testing.assert_close(stats.hardest, stats.positive)


def test_the_guide_removes_what_is_above_the_threshold_not_what_is_at_it() -> None:
    units = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2]]  # all scores are exactly 0 or 1
    options = {"rows": slice(0, 4), "temperature": 1.0}
    for threshold, expected in ((1.0, 0), (0.9999, 2), (0.0, 2), (-0.0001, 12)):
        guide = GuideFilter((units, units), torch.full((4,), threshold, dtype=torch.float64))
        columns = random_columns(2, 4, DIM)
        _, stats = streamed_cross_entropy(columns, BLOCKS["one"], guide=guide, **options)
        assert int(stats.filtered) == expected


def test_nothing_but_the_positive_is_left() -> None:
    columns = leaves(random_columns(3, ROWS, DIM))
    guide = example_guide()
    strict = GuideFilter(guide.columns, torch.full_like(guide.threshold, -2))
    value, stats = streamed_cross_entropy(
        columns, BLOCKS["gist"], rows=slice(0, ROWS), temperature=0.01, guide=strict
    )
    assert float(value.detach()) == 0
    assert all(not grad.any() for grad in torch.autograd.grad(value, columns))
    assert int(stats.filtered) == ROWS * (4 * ROWS - 3)
    assert similarity_metrics(stats)["hardest_negative_similarity"].isnan()


# Products for candidates, which are added at once, and for rows, whose sums are multiplied by a factor first.
ADDITIONS = (torch.ops.aten.addmm_.default, torch.ops.aten.mm.default)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation returns, and how often gradients are added to."""

    numel = 0
    num_additions = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        self.num_additions += func in ADDITIONS
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return out


@pytest.mark.parametrize("num_rows", [512, 1024])
def test_memory_is_one_panel(num_rows: int) -> None:
    columns = leaves(random_columns(3, num_rows, DIM))
    units = tuple(normalize(c, dim=1) for c in random_columns(3, num_rows, 5, seed=1))
    guide = GuideFilter(units, (units[0] * units[1]).sum(1))
    with LargestTensor() as largest:
        value, _ = streamed_cross_entropy(
            columns,
            BLOCKS["gist"],
            rows=slice(0, num_rows),
            temperature=0.05,
            guide=guide,
            panel_bytes=1,
        )
        value.backward()
    assert largest.numel == walk.MIN_PANEL_ROWS["cpu"] * 4 * num_rows < num_rows**2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_do_not_reach_the_products(dtype: torch.dtype) -> None:
    columns = [column.to(dtype) for column in random_columns(3, ROWS, DIM)]
    exact, mine = leaves([column.double() for column in columns]), leaves(columns)
    options = {"rows": slice(0, ROWS), "temperature": 0.01}
    expected, _ = streamed_cross_entropy(exact, BLOCKS["gist"], **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, _ = streamed_cross_entropy(mine, BLOCKS["gist"], **options)
        value.backward()
    expected.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    for column, reference in zip(mine, exact):
        assert column.grad is not None
        assert reference.grad is not None
        assert column.grad.dtype == dtype
        tolerance = 4 * torch.finfo(dtype).eps * float(reference.grad.abs().max()) + 1e-5
        torch.testing.assert_close(column.grad.double(), reference.grad, rtol=0, atol=tolerance)


def test_a_loss_scale_rescues_small_float16_gradients() -> None:
    columns = [1000 * column.half() for column in random_columns(2, ROWS, DIM, noise=0.01)]
    options = {"rows": slice(0, ROWS), "temperature": 0.05}
    plain, scaled, exact = leaves(columns), leaves(columns), leaves([c.double() for c in columns])
    streamed_cross_entropy(plain, BLOCKS["one"], **options)[0].backward()
    (streamed_cross_entropy(scaled, BLOCKS["one"], **options)[0] * 2**16).backward()
    streamed_cross_entropy(exact, BLOCKS["one"], **options)[0].backward()
    assert scaled[0].grad is not None
    assert exact[0].grad is not None
    error = (scaled[0].grad.double() / 2**16 - exact[0].grad).abs().max() / exact[
        0
    ].grad.abs().max()
    assert error < 1e-3
    assert plain[0].grad is not None
    assert (plain[0].grad.double() - exact[0].grad).abs().max() / exact[0].grad.abs().max() > 1e-3


def test_gradients_only_where_asked() -> None:
    columns = random_columns(3, ROWS, DIM)
    options = {"blocks": BLOCKS["gist"], "rows": slice(0, ROWS), "temperature": 0.05}
    alone = [columns[0], columns[1].clone().requires_grad_(), columns[2]]
    value, _ = streamed_cross_entropy(alone, **options)
    (grad,) = torch.autograd.grad(value, alone[1], retain_graph=True)
    (again,) = torch.autograd.grad(3 * value, alone[1])
    everything = leaves(columns)
    expected = torch.autograd.grad(streamed_cross_entropy(everything, **options)[0], everything)
    torch.testing.assert_close(grad, expected[1], rtol=0, atol=1e-14)
    torch.testing.assert_close(again, 3 * grad)
    with torch.no_grad(), LargestTensor() as operations:
        quiet, _ = streamed_cross_entropy(leaves(columns), **options)
    assert not quiet.requires_grad
    assert operations.num_additions == 0
    with LargestTensor() as operations:
        streamed_cross_entropy(alone, **options)
    assert operations.num_additions == 3  # p is a candidate once and both in its own block
    torch.testing.assert_close(quiet, value)


def test_refuses_a_softmax_without_target() -> None:
    with pytest.raises(ValueError, match="positive"):
        streamed_cross_entropy(
            random_columns(1, 3, 2), [Block(0, 0, "masked")], rows=slice(0, 3), temperature=1
        )
