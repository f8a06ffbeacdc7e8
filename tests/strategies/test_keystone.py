"""Every loss x {direct, cached} x ranks x strategy gives the update of one process with the union batch.

Under DDP all losses are cached, and in a ring where they take one; on one device all are direct. Other modes
and strategies take one loss of each family that they can tell apart, see `TESTED` and `loss_families`.
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
    quiet,
    reference,
    relative_error,
    start_of,
)
from helpers.loss_families import one_of_each, trained
from inbatch.strategies import SingleDevice

ROWS = 8
CHUNK = 7  # of 12 texts of triplets or 8 of pairs, on each of two ranks: the last one is short
MODES: dict[str, dict[str, Any]] = {
    "direct": {},
    "cached": {"chunk_rows": CHUNK, "keep_gib": 0},
    "partly kept": {"chunk_rows": CHUNK, "keep_gib": 1.0},
    "ring": {"chunk_rows": CHUNK, "keep_gib": 0, "gather": "ring"},
}
FLOAT64, FLOAT32 = 1e-10, 5e-6
EACH, FAMILIES = [*LOSSES], [*one_of_each(LOSSES)]
TRAINED = [*one_of_each(LOSSES, trained)]
ONE = FAMILIES[-1:]
TESTED: dict[str, dict[str, list[str]]] = {  # losses by strategy and mode
    "single": {"direct": EACH, "cached": FAMILIES},
    "ddp": {"cached": EACH, "ring": EACH, "direct": FAMILIES, "partly kept": FAMILIES},
    "fsdp": {"cached": FAMILIES, "ring": FAMILIES, "direct": ONE},
    "deepspeed_stage_1": {"cached": TRAINED, "ring": TRAINED},
    "deepspeed_stage_2": {"cached": FAMILIES, "direct": ONE},
    "deepspeed_stage_3": {"cached": TRAINED},
}


def cases(strategy: str) -> list[tuple[str, str]]:
    """Losses and the modes in which they are tested under a strategy."""
    return [
        (name, mode)
        for mode, names in TESTED[strategy].items()
        for name in names
        if mode != "ring" or (LOSSES[name].scope == "candidates" and LOSSES[name].takes_ring)
    ]


def num_steps(name: str) -> int:
    """What a step leaves to the next one is the strategy's, which sees no more of a loss than its family."""
    return 2 if name in FAMILIES else 1


def _train_all(
    rank: int, world_size: int, path: Path, strategy: str, dtype: torch.dtype
) -> dict[tuple[str, str], dict[str, torch.Tensor]] | None:
    quiet()
    chosen = SingleDevice() if strategy == "single" else STRATEGIES[strategy]
    first, sizes = (rank, world_size, path, chosen), {"num_rows": ROWS, "dtype": dtype}
    found = {
        (name, mode): distributed(
            *first, LOSSES[name], num_steps=num_steps(name), **sizes, **MODES[mode]
        )
        for name, mode in cases(strategy)
    }
    return found if rank == 0 else None


def _check(path: Path, strategy: str, world_size: int, dtype: torch.dtype) -> None:
    found = run(_train_all, world_size, path, strategy, dtype)[0]
    limit = FLOAT64 if dtype == torch.float64 else FLOAT32
    expected: dict[str, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = {}
    for name, mode in cases(strategy):
        loss = LOSSES[name]
        if name not in expected:
            expected[name] = (
                reference(path, loss, ROWS, num_steps(name), dtype),
                start_of(path, loss, dtype),
            )
        error = relative_error(found[name, mode], *expected[name])
        assert error <= limit, f"{name}, {mode}: relative error {error:.1e} above {limit:.0e}"


def test_every_strategy_is_tested() -> None:
    assert TESTED.keys() == {"single", *STRATEGIES}


@pytest.mark.parametrize(("strategy", "world_size"), [("single", 1), ("ddp", 2), ("fsdp", 3)])
def test_update_equals_the_union_batch_in_float64(
    tiny_bert: Path, strategy: str, world_size: int
) -> None:
    _check(tiny_bert, strategy, world_size, torch.float64)


@pytest.mark.parametrize(
    ("strategy", "world_size"),
    [("deepspeed_stage_1", 2), ("deepspeed_stage_2", 3), ("deepspeed_stage_3", 2)],
)
def test_update_equals_the_union_batch_in_float32(
    tiny_bert: Path, strategy: str, world_size: int
) -> None:
    """DeepSpeed computes in no other precision; all others are tested in float64."""
    _check(tiny_bert, strategy, world_size, torch.float32)


Run = tuple[str, str, int, dict[str, Any]]  # strategy, loss, rows, options


def _train_some(
    rank: int, world_size: int, path: Path, runs: list[Run], num_steps: int
) -> list[dict[str, torch.Tensor]]:
    quiet()
    sizes: dict[str, Any] = {"num_steps": num_steps, "dtype": torch.float64}
    return [
        distributed(
            *(rank, world_size, path, STRATEGIES[strategy], LOSSES[name]),
            num_rows=rows,
            **sizes,
            **options,
        )
        for strategy, name, rows, options in runs
    ]


def _check_runs(path: Path, world_size: int, runs: list[Run], num_steps: int) -> None:
    found = run(_train_some, world_size, path, runs, num_steps)[0]
    for (strategy, name, rows, options), state in zip(runs, found, strict=True):
        wanted = reference(path, LOSSES[name], rows, num_steps, torch.float64)
        start = start_of(path, LOSSES[name], torch.float64)
        error = relative_error(state, wanted, start)
        assert error <= FLOAT64, f"{strategy}, {name}, {rows} rows, {options}: {error:.1e}"


def test_uneven_last_batches_are_weighted_by_rows(tiny_bert: Path) -> None:
    """Of 11 rows the last rank has one less, and of two rows it has none."""
    cached, ring = {"chunk_rows": 3, "keep_gib": 0}, {"chunk_rows": 3, "gather": "ring"}
    of_scopes = [(name, n) for name in ("gist_masked", "contrastive", "cosent") for n in (11, 2)]
    runs: list[Run] = [("ddp", name, n, cached) for name, n in [*of_scopes, ("scored", 2)]]
    _check_runs(tiny_bert, 3, [*runs, *(("ddp", "gist_masked", n, ring) for n in (11, 2))], 2)


def test_ten_steps_end_in_the_same_parameters(tiny_bert: Path) -> None:
    options = {"chunk_rows": 5, "keep_gib": 0}
    _check_runs(tiny_bert, 2, [(each, "gist", ROWS, options) for each in ("ddp", "fsdp")], 10)


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


FAULTS: list[tuple[Callable[..., None], str]] = [
    (_factor, "global"),
    (_detached, "global"),
    (_offset, "global"),
    (_factor, "ring"),
    (_left_on_the_way, "ring"),
]


def _plant(rank: int, world_size: int, path: Path) -> list[dict[str, torch.Tensor]]:
    quiet()
    found = []
    for fault, gather in FAULTS:
        with pytest.MonkeyPatch.context() as monkey:
            fault(monkey, rank)
            found.append(
                distributed(
                    *(rank, world_size, path, STRATEGIES["ddp"]),
                    LOSSES["multiple_negatives_ranking"],
                    num_rows=ROWS,
                    num_steps=1,
                    dtype=torch.float64,
                    gather=gather,
                )
            )
    return found


def test_planted_faults_are_noticed(tiny_bert: Path) -> None:
    loss, dtype = LOSSES["multiple_negatives_ranking"], torch.float64
    start, wanted = start_of(tiny_bert, loss, dtype), reference(tiny_bert, loss, ROWS, 1, dtype)
    for (fault, gather), found in zip(FAULTS, run(_plant, 2, tiny_bert)[0], strict=True):
        assert relative_error(found, wanted, start) > 1e-2, (fault, gather)


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
    few, many = run(_collectives, 2, tiny_bert, strategy, name, [(9, 2), (2, 2)], gather)[0]
    if strategy == "fsdp":  # parameters are gathered for each chunk, gradients reduced once
        few, many = ({k: v for k, v in counts.items() if "reduce" in k} for counts in (few, many))
    assert few == many
    assert sum(few.values()) > 0
    if gather == "ring":
        assert few["gloo:all_gather"] == 1  # DDP's own, when it is set up
        # Of a step: embeddings and guide in one hop forward and one backward, and two hops of gradients.
        assert few["gloo:send"] == few["gloo:recv"] == 2 * (2 + 2 + 2)


def test_a_step_of_ddp_sends_no_buffers(tiny_bert: Path) -> None:
    name = "multiple_negatives_ranking"
    two, four = run(_collectives, 2, tiny_bert, "ddp", name, [(9, 2), (9, 4)], "global")[0]
    assert four["gloo:broadcast"] - two["gloo:broadcast"] == 2  # Lightning asks about signals
    assert two["gloo:all_reduce"] < four["gloo:all_reduce"]


def _collectives(
    rank: int,
    world_size: int,
    path: Path,
    strategy: str,
    name: str,
    sizes: list[tuple[int, int]],
    gather: str,
) -> list[dict[str, int]]:
    """Of runs with so many rows of a chunk and steps."""
    quiet()
    first = (rank, world_size, path, STRATEGIES[strategy], LOSSES[name])
    options: dict[str, Any] = {"dtype": torch.float32, "keep_gib": 0, "gather": gather}
    return [
        collectives_of(
            lambda chunk_rows=chunk_rows, num_steps=num_steps: distributed(
                *first, num_rows=12, num_steps=num_steps, chunk_rows=chunk_rows, **options
            )
        )
        for chunk_rows, num_steps in sizes
    ]
