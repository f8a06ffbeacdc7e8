"""Print the table of src/inbatch/strategies/README.md: python tests/helpers/exactness_table.py"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["TQDM_DISABLE"] = "1"

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
from helpers.tiny import save_tiny_bert

WORLD_SIZE = 2
STEP: dict[str, Any] = {"num_rows": 12, "num_steps": 1, "chunk_rows": 5, "keep_gib": 0}
# Name of a row -> loss and how it gathers.
ROWS = {name: (loss, "global") for name, loss in LOSSES.items()} | {
    f"{name}, in a ring": (LOSSES[name], "ring")
    for name in ("multiple_negatives_ranking", "gist_masked")
}


def _measure(
    rank: int, world_size: int, path: Path, strategy: str, dtype: torch.dtype
) -> dict[str, Any] | None:
    quiet()
    found: dict[str, Any] = {}
    for name, (loss, gather) in ROWS.items():

        def train(steps: int, loss: Any = loss, gather: str = gather) -> Any:
            step = {**STEP, "num_steps": steps, "gather": gather}
            return distributed(
                rank, world_size, path, STRATEGIES[strategy], loss, dtype=dtype, **step
            )

        weights: dict[str, torch.Tensor] = {}
        one = collectives_of(lambda train=train, weights=weights: weights.update(train(1)))
        two = collectives_of(lambda train=train: train(2))
        found[name] = weights, {k: two[k] - one.get(k, 0) for k in two}  # set-up cancels out
    return found if rank == 0 else None


def main() -> None:
    """Measure and print."""
    path = save_tiny_bert(Path(tempfile.mkdtemp()))
    print("| loss | " + " | ".join(STRATEGIES) + " | collectives of a step (ddp) |")
    print("|---" * (len(STRATEGIES) + 2) + "|")
    measured = {}
    for strategy in STRATEGIES:
        dtype = torch.float32 if strategy.startswith("deepspeed") else torch.float64
        measured[strategy] = (
            dtype,
            run(_measure, WORLD_SIZE, path, strategy, dtype, timeout_s=1800)[0],
        )
    for name, (loss, _) in ROWS.items():
        cells = []
        for dtype, found in measured.values():
            start = start_of(path, loss, dtype)
            wanted = reference(path, loss, STEP["num_rows"], 1, dtype)
            cells.append(f"{relative_error(found[name][0], wanted, start):.0e}")
        counts = measured["ddp"][1][name][1]
        steps = ", ".join(f"{n} {k.removeprefix('gloo:')}" for k, n in sorted(counts.items()) if n)
        print(f"| {name} | " + " | ".join(cells) + f" | {steps} |", flush=True)


if __name__ == "__main__":
    main()
