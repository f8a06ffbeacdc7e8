"""Reading a run's `metrics.jsonl`: rows, one row a step, and series of one metric.

A row is a flat ``{"step": int, "epoch": float, "time_s": float, <metric>: number or None}``.
Training rows carry ``train/*`` and ``perf/*``, evaluation rows ``eval/*``; a step may have both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inbatch.errors import ConfigError

Row = Mapping[str, Any]


class Series(NamedTuple):
    """One metric over optimizer steps; both of the same length, steps ascending."""

    steps: list[int]
    values: list[float]


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics file in the order in which they were written.

    A last line without its newline was cut off by a kill, and is left out.

    Raises:
        ConfigError: there is no such file, or a complete line is not a row.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            "metrics", "is not a file", "give the metrics.jsonl of a run", value=str(path)
        )
    *lines, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is None:
            raise ConfigError(
                "metrics",
                f"has no row of metrics at line {number}",
                "repair or delete that line",
                value=str(path),
            )
        rows.append(row)
    return rows


def by_step(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row a step, ascending, holding all that was written at it; later values win."""
    merged: dict[int, dict[str, Any]] = {}
    for row in rows:
        merged.setdefault(int(row["step"]), {}).update(row)
    return [merged[step] for step in sorted(merged)]


def series(rows: Sequence[Row], name: str) -> Series:
    """The finite values of one metric; of several at a step the last."""
    found = {int(row["step"]): float(row[name]) for row in rows if is_finite(row.get(name))}
    steps = sorted(found)
    return Series(steps, [found[step] for step in steps])


def names(rows: Sequence[Row], prefix: str) -> list[str]:
    """Metrics that start with `prefix` and have a finite value, in order of appearance."""
    found = (name for row in rows for name, value in row.items() if is_finite(value))
    return [name for name in dict.fromkeys(found) if name.startswith(prefix)]


def is_finite(value: Any) -> bool:
    """True if a logged value is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    is_row = isinstance(row, dict) and {"step", "epoch", "time_s"} <= row.keys()
    return row if is_row and isinstance(row["step"], int) else None
