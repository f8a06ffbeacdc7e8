"""Adapters beside frozen weights get the update of one process with the union batch, under every strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.distributed import run
from helpers.keystone import (
    LOSSES,
    OF_LOSS,
    STRATEGIES,
    distributed,
    quiet,
    reference,
    relative_error,
    start_of,
)
from inbatch.strategies import SingleDevice

pytest.importorskip("peft")
ROWS, STEPS = 8, 3  # a new adapter's first step leaves one of its two matrices as it is
ADAPTED = {"encoder_options": {"adapter": {"rank": 4, "targets": ["query", "value", "dense"]}}}
CACHED: dict[str, Any] = {"chunk_rows": 7, "keep_gib": 0}
MODES: dict[str, dict[str, Any]] = {
    "direct": {},
    "cached": CACHED,
    "kept": {**CACHED, "keep_gib": 1.0},
    "ring": {**CACHED, "gather": "ring"},
}
TESTED = {
    **{name: ["cached"] for name in STRATEGIES},
    **{name: [*MODES] for name in ("single", "ddp")},
}
NAME = "mnrl_all_directions"  # whose temperature is learned beside the adapters


def _train(
    rank: int, world_size: int, path: Path, strategy: str, dtype: torch.dtype
) -> dict[str, dict[str, torch.Tensor]] | None:
    quiet()
    chosen = SingleDevice() if strategy == "single" else STRATEGIES[strategy]
    found = {}
    for name in TESTED[strategy]:
        sizes: dict[str, Any] = {"num_rows": ROWS, "num_steps": STEPS, "dtype": dtype}
        torch.manual_seed(0)
        found[name] = distributed(
            rank, world_size, path, chosen, LOSSES[NAME], **sizes, **ADAPTED, **MODES[name]
        )
    return found if rank == 0 else None


@pytest.mark.parametrize("strategy", [*TESTED])
def test_update_equals_the_union_batch(tiny_bert: Path, strategy: str) -> None:
    in_float32 = strategy.startswith("deepspeed")  # which computes in no other precision
    dtype, limit = (torch.float32, 5e-6) if in_float32 else (torch.float64, 1e-10)
    found = run(_train, 1 if strategy == "single" else 2, tiny_bert, strategy, dtype)[0]
    torch.manual_seed(0)
    start = start_of(tiny_bert, LOSSES[NAME], dtype, **ADAPTED["encoder_options"])
    torch.manual_seed(0)
    wanted = reference(tiny_bert, LOSSES[NAME], ROWS, STEPS, dtype, **ADAPTED)
    moved = {name for name, value in wanted.items() if not torch.equal(value, start[name])}
    assert moved == {name for name in start if "lora_" in name or name.startswith(OF_LOSS)}
    assert sum(name.startswith(OF_LOSS) for name in moved) == 1
    for mode, parameters in found.items():
        assert relative_error(parameters, wanted, start) <= limit, mode
        for name in start.keys() - moved:
            assert torch.equal(parameters[name], start[name]), name
