"""Every loss x {direct, cached} x ranks x strategy gives the update of one process with the union batch.

Under DDP all losses are cached, and in a ring where they take one; on one device all are direct. Other modes
and strategies take one loss of each family that they can tell apart, see `loss_families`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.distributed import run
from helpers.keystone import (
    LOSSES,
    STRATEGIES,
    collectives_of,
    distributed,
    make_encoder,
    quiet,
    reference,
    relative_error,
    start_of,
)
from helpers.loss_families import one_of_each
from inbatch.losses.base import Loss
from inbatch.strategies import SingleDevice

CHUNK = 7  # of 18 texts of triplets or 12 of pairs, on each of two ranks: the last one is short
OF_ALL = {"ddp": ("cached", "ring"), "single": ("direct",)}  # modes in which all losses are tested
MODES: dict[str, dict[str, Any]] = {
    "direct": {},
    "cached": {"chunk_rows": CHUNK, "keep_gib": 0},
    "partly kept": {"chunk_rows": CHUNK, "keep_gib": 1.0},
    "ring": {"chunk_rows": CHUNK, "keep_gib": 0, "gather": "ring"},
}
FLOAT64, FLOAT32 = 1e-10, 5e-6


def _train_all(
    rank: int, world_size: int, path: Path, strategy: str, dtype: torch.dtype, modes: list[str]
) -> dict[tuple[str, str], dict[str, torch.Tensor]] | None:
    quiet()
    chosen = SingleDevice() if strategy == "single" else STRATEGIES[strategy]
    found = {
        (name, mode): distributed(
            rank,
            world_size,
            path,
            chosen,
            loss,
            num_rows=12,
            num_steps=2,
            dtype=dtype,
            **MODES[mode],
        )
        for name, loss, mode in cases(strategy, modes)
    }
    return found if rank == 0 else None


def cases(strategy: str, modes: list[str]) -> list[tuple[str, Loss, str]]:
    """Losses and the modes in which they are tested under a strategy."""
    families = one_of_each(LOSSES)
    of_all = OF_ALL.get(strategy, ())
    return [
        (name, loss, mode)
        for name, loss in LOSSES.items()
        for mode in modes
        if (name in families or mode in of_all)
        and (mode != "ring" or (loss.scope == "candidates" and loss.takes_ring))
    ]


def _check(
    path: Path, strategy: str, world_size: int, dtype: torch.dtype, modes: list[str]
) -> None:
    found = run(_train_all, world_size, path, strategy, dtype, modes)[0]
    limit = FLOAT64 if dtype == torch.float64 else FLOAT32
    expected: dict[str, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = {}
    for name, loss, mode in cases(strategy, modes):
        if name not in expected:
            expected[name] = reference(path, loss, 12, 2, dtype), start_of(path, loss, dtype)
        error = relative_error(found[name, mode], *expected[name])
        assert error <= limit, f"{name}, {mode}: relative error {error:.1e} above {limit:.0e}"


@pytest.mark.parametrize(
    ("strategy", "world_size"),
    [("single", 1), ("ddp", 3), ("fsdp", 3)],
)
def test_update_equals_the_union_batch_in_float64(
    tiny_bert: Path, strategy: str, world_size: int
) -> None:
    modes = [mode for mode in MODES if (strategy, world_size, mode) != ("fsdp", 3, "partly kept")]
    _check(tiny_bert, strategy, world_size, torch.float64, modes)


@pytest.mark.parametrize(
    ("strategy", "world_size"),
    [("deepspeed_stage_1", 2), ("deepspeed_stage_2", 3), ("deepspeed_stage_3", 2)],
)
def test_update_equals_the_union_batch_in_float32(
    tiny_bert: Path, strategy: str, world_size: int
) -> None:
    """DeepSpeed computes in no other precision; all others are tested in float64."""
    ring = ["ring"] if strategy == "deepspeed_stage_1" else []
    direct = ["direct"] if strategy == "deepspeed_stage_2" else []
    _check(tiny_bert, strategy, world_size, torch.float32, [*direct, "cached", *ring])


def _train_one(
    rank: int, world_size: int, path: Path, strategy: str, name: str, options: dict[str, Any]
) -> dict[str, torch.Tensor]:
    quiet()
    options = {"num_rows": 12, "num_steps": 2, "dtype": torch.float64, **options}
    return distributed(rank, world_size, path, STRATEGIES[strategy], LOSSES[name], **options)


def _error(path: Path, world_size: int, name: str, strategy: str = "ddp", **options: Any) -> float:
    found = run(_train_one, world_size, path, strategy, name, options)[0]
    start = start_of(path, LOSSES[name], torch.float64)
    steps, rows = options.get("num_steps", 2), options.get("num_rows", 12)
    return relative_error(found, reference(path, LOSSES[name], rows, steps, torch.float64), start)


UNEVEN = [(name, rows) for name in ("gist", "contrastive", "cosent") for rows in (11, 10, 2)]


@pytest.mark.parametrize(("name", "num_rows"), [*UNEVEN, ("gist_masked", 11), ("scored", 2)])
def test_uneven_last_batches_are_weighted_by_rows(
    tiny_bert: Path, name: str, num_rows: int
) -> None:
    assert _error(tiny_bert, 3, name, num_rows=num_rows, chunk_rows=3, keep_gib=0) <= FLOAT64


@pytest.mark.parametrize("num_rows", [11, 10, 2])
def test_uneven_last_batches_in_a_ring(tiny_bert: Path, num_rows: int) -> None:
    error = _error(tiny_bert, 3, "gist_masked", num_rows=num_rows, chunk_rows=3, gather="ring")
    assert error <= FLOAT64


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_ten_steps_end_in_the_same_parameters(tiny_bert: Path, strategy: str) -> None:
    error = _error(tiny_bert, 2, "gist", strategy, num_steps=10, chunk_rows=5, keep_gib=0)
    assert error <= FLOAT64


def _factor(monkey: pytest.MonkeyPatch, rank: int) -> None:
    from inbatch.gather.gather import Rows

    monkey.setattr(Rows, "weight", property(lambda rows: float(len(rows.counts))))


def _detached(monkey: pytest.MonkeyPatch, rank: int) -> None:
    from inbatch.gather import gather

    original = gather.all_gather_rows
    monkey.setattr(
        gather, "all_gather_rows", lambda x, c, **how: _own_gradient_only(original, x, c, rank)
    )


def _own_gradient_only(original: Callable[..., Any], x: Any, counts: Any, rank: int) -> Any:
    """The widespread mistake: gather without gradient and put the own rows back."""
    gathered = original(x.detach(), counts).clone()
    start = sum(counts[:rank])
    return torch.cat([gathered[:start], x, gathered[start + len(x) :]])


def _offset(monkey: pytest.MonkeyPatch, rank: int) -> None:
    from inbatch.gather.gather import Rows

    original = Rows.owned.fget
    assert original is not None

    def shifted(rows: Rows) -> slice:
        own = original(rows)
        return slice(own.start - 1, own.stop - 1) if rank > 0 else own

    monkey.setattr(Rows, "owned", property(shifted))


def _left_on_the_way(monkey: pytest.MonkeyPatch, rank: int) -> None:
    """Gradients of received that are not passed on."""
    from inbatch.gather.ring import PendingHop, RowsRing

    def keep(ring: RowsRing, tensor: torch.Tensor, owner: int) -> PendingHop:
        return PendingHop([torch.zeros_like(tensor)], owner, ring)

    monkey.setattr(RowsRing, "pass_on", keep)


def _plant(
    rank: int, world_size: int, path: Path, fault: Callable[..., None], gather: str
) -> dict[str, torch.Tensor]:
    quiet()
    with pytest.MonkeyPatch.context() as monkey:
        fault(monkey, rank)
        return distributed(
            rank,
            world_size,
            path,
            STRATEGIES["ddp"],
            LOSSES["multiple_negatives_ranking"],
            num_rows=12,
            num_steps=1,
            dtype=torch.float64,
            gather=gather,
        )


@pytest.mark.parametrize(
    ("fault", "gather"),
    [
        (_factor, "global"),
        (_detached, "global"),
        (_offset, "global"),
        (_factor, "ring"),
        (_left_on_the_way, "ring"),
    ],
)
def test_planted_faults_are_noticed(
    tiny_bert: Path, fault: Callable[..., None], gather: str
) -> None:
    found = run(_plant, 2, tiny_bert, fault, gather)[0]
    start = {
        n: p.detach().clone() for n, p in make_encoder(tiny_bert, torch.float64).named_parameters()
    }
    wanted = reference(tiny_bert, LOSSES["multiple_negatives_ranking"], 12, 1, torch.float64)
    assert relative_error(found, wanted, start) > 1e-2


@pytest.mark.parametrize(
    ("strategy", "name", "gather"),
    [
        ("ddp", "multiple_negatives_ranking", "global"),
        ("fsdp", "gist", "global"),
        ("ddp", "gist", "ring"),
    ],
)
def test_collectives_of_a_step_do_not_depend_on_chunks(
    tiny_bert: Path, strategy: str, name: str, gather: str
) -> None:
    few, many = (
        run(_collectives, 2, tiny_bert, strategy, name, chunk_rows, gather)[0]
        for chunk_rows in (9, 2)
    )
    if strategy == "fsdp":  # parameters are gathered for each chunk, gradients reduced once
        few, many = ({k: v for k, v in counts.items() if "reduce" in k} for counts in (few, many))
    assert few == many
    assert sum(few.values()) > 0
    if gather == "ring":
        assert few["gloo:all_gather"] == 1  # DDP's own, when it is set up
        # Of a step: embeddings and guide in one hop forward and one backward, and two hops of gradients.
        assert few["gloo:send"] == few["gloo:recv"] == 2 * (2 + 2 + 2)


def test_a_step_of_ddp_sends_no_buffers(tiny_bert: Path) -> None:
    options = (tiny_bert, "ddp", "multiple_negatives_ranking", 9, "global")
    two, four = (run(_collectives, 2, *options, steps)[0] for steps in (2, 4))
    assert four["gloo:broadcast"] - two["gloo:broadcast"] == 2  # Lightning asks about signals
    assert two["gloo:all_reduce"] < four["gloo:all_reduce"]


def _collectives(
    rank: int,
    world_size: int,
    path: Path,
    strategy: str,
    name: str,
    chunk_rows: int,
    gather: str,
    num_steps: int = 2,
) -> Any:
    quiet()
    return collectives_of(
        lambda: distributed(
            rank,
            world_size,
            path,
            STRATEGIES[strategy],
            LOSSES[name],
            num_rows=12,
            num_steps=num_steps,
            dtype=torch.float32,
            chunk_rows=chunk_rows,
            keep_gib=0,
            gather=gather,
        ),
    )
