"""Losses whose candidates travel from rank to rank, against the union batch on one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.distributed import gloo, run
from helpers.half_products import matrix_units
from helpers.shortage import ERRORS
from inbatch.gather import LocalGather, RowsRing, split_rows
from inbatch.gather.ring import PendingHop
from inbatch.losses import GIST, Matryoshka, MultipleNegativesRanking
from inbatch.losses.base import Loss, LossInput
from inbatch.losses.softmax import ring, walk
from inbatch.losses.softmax.torch_panels import TorchArithmetic

COLUMNS, DIM = 3, 6
EVERY_DIRECTION = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
LOSSES: dict[str, Loss] = {
    "mnrl": MultipleNegativesRanking(),
    "directions": MultipleNegativesRanking(directions=EVERY_DIRECTION, mask_duplicates=True),
    "two softmaxes": MultipleNegativesRanking(
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
        similarity="dot",
    ),
    **{
        mode: MultipleNegativesRanking(hardness_mode=mode, hardness_strength=4.0)
        for mode in ("in_batch_negatives", "hard_negatives", "all_negatives")
    },
    "gist": GIST(temperature=0.05, mask_duplicates=True),
    "gist_margin": GIST(temperature=0.05, margin=0.2, margin_strategy="relative"),
    "mask_margin": MultipleNegativesRanking(
        directions=EVERY_DIRECTION,
        mask_margin=0.1,
        hardness_mode="all_negatives",
        hardness_strength=2.0,
    ),
    "self_guided": GIST(temperature=0.05, self_guided=True),
    "matryoshka": Matryoshka(GIST(temperature=0.1), dims=(6, 4, 2)),
}
COSINES = {
    name: LOSSES[name]
    for name in ("directions", "hard_negatives", "gist", "self_guided", "matryoshka")
}


def union_batch(num_rows: int, exact_in: torch.dtype | None = None) -> LossInput:
    """In float64; with `exact_in` of values that 16 bits hold, as they hold the guide's."""
    generator = torch.Generator().manual_seed(3)
    columns = torch.randn(COLUMNS, num_rows, DIM, generator=generator, dtype=torch.float64)
    guide = torch.randn(COLUMNS, num_rows, 4, generator=generator, dtype=torch.float64)
    if exact_in is not None:
        columns, guide = columns.to(exact_in).double(), guide.half().double()
    ids = torch.randint(0, num_rows, (COLUMNS, num_rows), generator=generator)
    rows = slice(0, num_rows)
    return LossInput(columns.unbind(0), rows, None, guide.unbind(0), ids.unbind(0))


Found = dict[str, tuple[float, dict[str, Tensor], Tensor, float]]


def _losses_and_gradients(rank: int, world_size: int, num_rows: int) -> Found:
    gloo()
    return _found(rank, world_size, union_batch(num_rows), LOSSES)


def _in_16_bits(rank: int, world_size: int, num_rows: int) -> dict[torch.dtype | None, Found]:
    gloo()
    found: dict[torch.dtype | None, Found] = {}
    for exact_in in (torch.bfloat16, None):  # as they are; split in two parts
        union = union_batch(num_rows, exact_in)
        columns = tuple(column.float() for column in union.columns)
        guide = tuple(column.half() if exact_in else column.float() for column in union.guide or ())
        low = replace(union, columns=columns, guide=guide, exact_in=exact_in, mixed=True)
        with matrix_units():
            found[exact_in] = _found(rank, world_size, low, COSINES)
    return found


def _found(
    rank: int,
    world_size: int,
    union: LossInput,
    losses: dict[str, Loss],
    lower: Callable[[], int | None] = lambda: None,
) -> Found:
    walk.MIN_PANEL_ROWS["cpu"] = walk.MAX_PANEL_ROWS["cpu"] = 3  # several panels a visit
    gather, num_rows = LocalGather(rank, world_size), union.num_global
    counts = split_rows(num_rows, world_size)
    own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
    rows = gather.rows(counts[rank], num_rows)
    found = {}
    for name, loss in losses.items():
        local = torch.stack([c[own] for c in union.columns]).requires_grad_()
        output = loss(
            LossInput(
                gather.embeddings(local, rows),
                rows.owned,
                None,
                tuple(column[own] for column in union.guide or ()),
                tuple(ids[own] for ids in union.text_ids or ()),
                RowsRing(rows.counts, rank, lower),
                exact_in=union.exact_in,
                mixed=union.mixed,
            )
        )
        (output.loss * rows.weight / world_size).backward()
        assert local.grad is not None
        found[name] = (output.loss.item(), output.metrics, local.grad, rows.weight / world_size)
    return found


def test_in_16_bits_it_is_near_the_union_batch_in_float64() -> None:
    found = run(_in_16_bits, 3, 13)
    for exact_in, name in product((torch.bfloat16, None), COSINES):
        union = union_batch(13, exact_in)
        columns = torch.stack(union.columns).requires_grad_()
        wanted = COSINES[name](replace(union, columns=columns.unbind(0)))
        wanted.loss.backward()
        values, _, gradients, weights = zip(*(of_rank[exact_in][name] for of_rank in found))
        total = sum(value * weight for value, weight in zip(values, weights))
        assert total == pytest.approx(wanted.loss.item(), rel=1e-5), name
        assert columns.grad is not None
        error = (torch.cat(gradients, dim=1) - columns.grad).norm() / columns.grad.norm()
        assert error < torch.finfo(exact_in or torch.float16).eps / 2, name


@pytest.mark.parametrize(("world_size", "num_rows"), [(2, 8), (3, 13), (3, 4)])
def test_the_loss_is_that_of_the_union_batch(world_size: int, num_rows: int) -> None:
    found = run(_losses_and_gradients, world_size, num_rows)
    for name, loss in LOSSES.items():
        union = union_batch(num_rows)
        columns = torch.stack(union.columns).requires_grad_()
        wanted = loss(replace(union, columns=columns.unbind(0)))
        wanted.loss.backward()
        values, metrics, gradients, weights = zip(*(of_rank[name] for of_rank in found))
        total = sum(value * weight for value, weight in zip(values, weights))
        assert total == pytest.approx(wanted.loss.item(), abs=1e-12), name
        torch.testing.assert_close(torch.cat(gradients, dim=1), columns.grad, msg=name)
        shares = [float(m.get("filtered_share", 0)) for m in metrics]
        mean = sum(share * weight for share, weight in zip(shares, weights))
        assert mean == pytest.approx(float(wanted.metrics.get("filtered_share", 0))), name
        positive = sum(float(m["positive_similarity"]) * w for m, w in zip(metrics, weights))
        assert positive == pytest.approx(float(wanted.metrics["positive_similarity"])), name


Starved = tuple[str, str, int, int]  # loss, place, first call that fails, and how many do


def _starved(rank: int, world_size: int, cases: list[Starved]) -> list[tuple[Found, int, int]]:
    """What ranks 1 and on find that run out of memory, how often they did, and the calls that they made."""
    gloo()
    results = []
    for name, place, first, num in cases:
        calls, lowered = [0], [0]

        def lower(lowered: list[int] = lowered) -> int:
            lowered[0] += 1
            return lowered[0]

        with pytest.MonkeyPatch.context() as monkey:
            owner, attribute = PLACES[place]
            if rank > 0:
                fails = range(first + rank, first + rank + num)
                failing = _failing(getattr(owner, attribute), calls, fails)
                monkey.setattr(owner, attribute, failing)
            found = _found(rank, world_size, union_batch(13), {name: LOSSES[name]}, lower)
        results.append((found, lowered[0], calls[0]))
    return results


PLACES: dict[str, tuple[Any, str]] = {
    "scores": (TorchArithmetic, "reduce"),
    "weights": (TorchArithmetic, "weigh"),
    "products": (ring, "add_product"),
    "buffers": (torch.Tensor, "new_empty"),
}


def _failing(whole: Callable[..., Any], calls: list[int], fails: range) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] in fails:
            raise ERRORS["allocator"]
        return whole(*args, **options)

    return call


@pytest.mark.parametrize("every", [7, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_ranks_that_run_out_of_memory_between_two_hops_go_on(every: int) -> None:
    """At some calls of a place, once or several times in a row, on one rank after the other."""
    cases = [
        (name, place, first, num)
        for name in ("directions", "gist_margin")
        for place in PLACES
        for first, num in [*((n, 1) for n in range(0, 40, every)), (5, 3), (20, 2)]
    ]
    found = run(_starved, 3, cases)
    for (name, place, first, num), *of_ranks in zip(cases, *found, strict=True):
        union = union_batch(13)
        columns = torch.stack(union.columns).requires_grad_()
        wanted = LOSSES[name](replace(union, columns=columns.unbind(0)))
        wanted.loss.backward()
        case = f"{name}: {place} {first} {num}"
        values, _, gradients, weights = zip(*(each[name] for each, _, _ in of_ranks))
        total = sum(value * weight for value, weight in zip(values, weights))
        assert total == pytest.approx(wanted.loss.item(), abs=1e-12), case
        torch.testing.assert_close(torch.cat(gradients, dim=1), columns.grad, msg=case)
        for rank, (_, lowered, calls) in enumerate(of_ranks):
            assert lowered == sum(0 < first + rank + n <= calls for n in range(num) if rank), case


def test_it_is_no_loss_of_own_rows() -> None:
    """What the test above would not notice if all candidates were local."""
    union = union_batch(8)
    own = LossInput(tuple(c[:4] for c in union.columns), slice(0, 4))
    alone, whole = (float(LOSSES["mnrl"](inputs).loss) for inputs in (own, union))
    assert abs(alone - whole) > 0.1


def _hops(rank: int, world_size: int) -> list[int]:
    gloo()
    rows_ring = RowsRing((2, 1, 1), rank)
    own = torch.full((1, rows_ring.counts[rank], 2), rank)
    owners = []
    pending: PendingHop | None = None
    for owner, (here, also) in rows_ring.hops([own, own.double()]):
        assert here.shape == also.shape == (1, rows_ring.counts[owner], 2)
        assert here.unique().tolist() == also.unique().tolist() == [owner]
        owners.append(owner)
        if pending is not None:
            (carried,) = pending.wait()
            here = here + carried  # each rank that is passed adds the owner's number
        pending = rows_ring.pass_on(here, owner)
    assert pending is not None
    (home,) = pending.wait()
    assert home.tolist() == (world_size * own).tolist()
    return owners


def test_rows_visit_every_rank_once_and_come_home() -> None:
    assert run(_hops, 3) == [[0, 2, 1], [1, 0, 2], [2, 1, 0]]
