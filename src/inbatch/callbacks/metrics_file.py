"""The run's own log: `metrics.jsonl`, one JSON object a line, and `metrics.csv` made from it.

A row is ``{"step": int, "epoch": float, "time_s": float, <metric>: number, ...}``. Each row is on
disk before the next step, so a killed run loses no more than the line that it was writing.
"""

from __future__ import annotations

import json
import math
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from inbatch.errors import ConfigError
from inbatch.export.metrics_log import read_metrics
from inbatch.files import write_csv, write_text, writing

Row = dict[str, Any]


class MetricsFile(Logger):
    """Lightning logger that appends rows to a file; only rank zero writes.

    A run that resumes calls `rewind` with the checkpoint's step, so that steps which are trained again
    appear once, and with that of the last whole row of training, so that one which a stop has cut off is
    written again. ``time_s`` continues from the last row that is kept.

    Args:
        path: of the rows, ``metrics.jsonl``.
        csv_path: of the table made from them at the end.
    """

    def __init__(self, path: Path, *, csv_path: Path) -> None:
        super().__init__()
        self.path = path
        self.csv_path = csv_path
        self._start_s = time.monotonic()
        self._earlier_s: float | None = (
            None  # of the runs before; None until the file was looked at
        )
        self._epoch = 0.0

    @property
    def name(self) -> str:
        """Empty: the folder is the run's."""
        return ""

    @property
    def version(self) -> str:
        """Empty: a resumed run continues in the same file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of both files."""
        return str(self.path.parent)

    @property
    def log_dir(self) -> str:
        """The folder of both files."""
        return self.save_dir

    @rank_zero_only
    def rewind(self, step: float, *, train_step: float = math.inf) -> None:
        """Drop the rows after `step`, those of training after `train_step`, and a half-written last line.

        -1 drops all, inf none.
        """
        rows = _rows(self.path)
        kept = [
            row
            for row in rows
            if row["step"] <= (min(step, train_step) if "train/loss" in row else step)
        ]
        if self.path.exists():
            write_text(self.path, "".join(_line(row) for row in kept))
        last = kept[-1] if kept else {"time_s": 0.0, "epoch": 0.0}
        self._earlier_s = last["time_s"]
        self._epoch = last["epoch"]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row. A row without ``epoch`` has that of the row before it."""
        if step is None:
            raise ValueError("log_metrics needs the step of the row")
        if self._earlier_s is None:
            self.rewind(math.inf)
        assert self._earlier_s is not None
        self._epoch = float(metrics.get("epoch", self._epoch))
        time_s = round(self._earlier_s + time.monotonic() - self._start_s, 3)
        row: Row = {"step": int(step), "epoch": self._epoch, "time_s": time_s}
        row |= {name: _number(name, value) for name, value in metrics.items() if name not in row}
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(row))

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: the run's folder holds its resolved configuration."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write ``metrics.csv``, whatever the status; its columns are all names of the rows.

        After a failure, one here is not told: the first may be that nothing can be written.
        """
        rows = _rows(self.path)
        if not rows:
            return
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = ([row.get(name) for name in columns] for row in rows)
        with suppress(*([ConfigError] if status == "failed" else [])):
            write_csv(self.csv_path, columns, cells)


def _rows(path: Path) -> list[Row]:
    return read_metrics(path) if path.exists() else []


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _number(name: str, value: Any) -> float | int | None:
    """JSON knows no nan and no infinity: such a value is null, where an absent one has no key."""
    if isinstance(value, Tensor | np.generic):
        value = value.item()
    if not isinstance(value, int | float):
        raise TypeError(f"{name} is a {type(value).__name__}, not a number")
    return value if math.isfinite(value) else None
