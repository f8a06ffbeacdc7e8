"""The gather against the whole batch on one process, on real ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from helpers.distributed import gloo, run
from inbatch.gather import GlobalGather, LocalGather, all_gather_rows, max_over_ranks, split_rows


def _gradient(rank: int, world_size: int, num_global: int) -> torch.Tensor:
    gloo()
    generator = torch.Generator().manual_seed(7)
    columns = torch.randn(3, num_global, 5, generator=generator, dtype=torch.float64)
    weights = torch.randn(3, num_global, 5, generator=generator, dtype=torch.float64)
    gather = GlobalGather(rank, world_size)
    num_local = split_rows(num_global, world_size)[rank]
    rows = gather.rows(num_local, num_global)
    local = columns[:, rows.owned].clone().requires_grad_()
    gathered = gather.embeddings(local, rows)
    assert all(torch.equal(g, c) for g, c in zip(gathered, columns, strict=True))
    # each rank weighs the rows of all ranks by (rank + 1): the gradient of row j is the sum over ranks
    loss = sum((g * w).sum() for g, w in zip(gathered, weights, strict=True)) * (rank + 1)
    loss.backward()
    total = world_size * (world_size + 1) / 2
    torch.testing.assert_close(local.grad, weights[:, rows.owned] * total)
    return torch.tensor(rows.weight)


@pytest.mark.parametrize(("world_size", "num_global"), [(2, 8), (3, 9), (3, 11), (3, 2)])
def test_backward_sums_over_ranks(world_size: int, num_global: int) -> None:
    weights = run(_gradient, world_size, num_global)
    assert sum(float(w) for w in weights) == pytest.approx(world_size)


def _data(rank: int, world_size: int, num_rows: int) -> None:
    gloo()
    counts = split_rows(num_rows, world_size)
    start = sum(counts[:rank])
    guide = torch.arange(num_rows * 2 * 3, dtype=torch.float32).view(num_rows, 2, 3)
    labels = torch.arange(num_rows, dtype=torch.float32)  # half as wide as what follows
    ids = torch.arange(2 * num_rows).view(2, num_rows).T + (1 << 60)
    gather = GlobalGather(rank, world_size)
    rows = gather.rows(counts[rank], num_rows)
    own = slice(start, start + counts[rank])
    own_ids = ids.T[:, own].clone().T  # as a batch has them: columns first
    found = gather.start_data([guide[own], labels[own], own_ids], rows).wait()
    for got, want in zip(found, [guide, labels, ids], strict=True):
        assert torch.equal(got, want)
        assert got.dtype == want.dtype


@pytest.mark.parametrize("num_rows", [7, 2, 1])
def test_data_of_all_types_travels_in_one_collective(num_rows: int) -> None:
    run(_data, 3, num_rows)


def _counted(rank: int, world_size: int) -> dict[str, list[int]]:
    gloo()
    counted: dict[str, list[int]] = {}
    for name in ("all_gather_single", "reduce_scatter_single"):
        import inbatch.gather.collectives as collectives

        original = getattr(collectives, name)

        def count(out, sent, _name: str = name, _original=original, **kwargs: object) -> object:
            counted.setdefault(_name, []).append(sent.nbytes)
            return _original(out, sent, **kwargs)

        setattr(collectives, name, count)
    gather = GlobalGather(rank, world_size)
    for exact_in in (None, torch.bfloat16, torch.float16):
        local = torch.randn(5, 4, 6).to(exact_in).float().requires_grad_()  # 5 columns
        columns = gather.embeddings(local, gather.rows(4, 8), exact_in=exact_in)
        own = torch.stack(columns)[:, 4 * rank : 4 * rank + 4]
        assert own.dtype == torch.float32
        assert torch.equal(own, local)
        sum((column / 3).sum() for column in columns).backward()
        assert local.grad is not None
        torch.testing.assert_close(local.grad, torch.full_like(local, 2 / 3))
    return counted


def test_one_collective_each_way_and_half_the_bytes_for_values_of_16_bits() -> None:
    size = 5 * 4 * 6 * 4
    sent = {
        "all_gather_single": [size, size // 2, size // 2],
        "reduce_scatter_single": [2 * size] * 3,
    }
    assert run(_counted, 2) == [sent] * 2


def _maximum(rank: int, world_size: int) -> list[int]:
    gloo()
    return max_over_ranks([rank, -rank, 5], torch.device("cpu"))


def test_max_over_ranks() -> None:
    assert run(_maximum, 3) == [[2, 0, 5]] * 3


def test_local_gather_weighs_by_rows() -> None:
    rows = LocalGather(rank=2, world_size=3).rows(3, 11)
    assert rows.owned == slice(0, 3)
    assert rows.weight == pytest.approx(3 * 3 / 11)


def test_rows_that_the_plan_does_not_give_are_refused() -> None:
    with pytest.raises(ValueError, match="slice_rows"):
        GlobalGather(0, 2).rows(3, 8)


def _dead_rank(rank: int, world_size: int) -> None:
    gloo()
    if rank == 1:
        raise RuntimeError("planted")
    all_gather_rows(torch.zeros(1, 1), (1, 1))
    dist.barrier()


def test_the_harness_reports_a_failing_rank() -> None:
    with pytest.raises(AssertionError, match="planted"):
        run(_dead_rank, 2, timeout_s=30)
