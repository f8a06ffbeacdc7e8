"""Folders of sweeps without runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from inbatch.sweep.trials import Mode, Result, Status, Trial, write_trial


def write(
    sweep: Path,
    number: int,
    value: float | None,
    *,
    status: Status = "completed",
    mode: Mode = "max",
    metric: str = "eval_cosine_accuracy",
    error: str | None = None,
    course: Sequence[tuple[int, float]] = (),
    **parameters: object,
) -> Path:
    """A trial, and the evaluations of its run."""
    folder = sweep / str(number)
    result = Result() if value is None else Result(metric=metric, mode=mode, value=value, step=10)
    overrides = tuple(f"++{name.replace('__', '.')}={v}" for name, v in parameters.items())
    trial = Trial(
        number=number,
        overrides=("sampler=batch", *overrides),
        status=status,
        result=result,
        seconds=1.5,
        error=error,
    )
    write_trial(trial, folder)
    rows = [{"step": s, "epoch": 0.0, "time_s": 0.0, f"eval/{metric}": v} for s, v in course]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
