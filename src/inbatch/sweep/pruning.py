"""Is a point so far behind that it may stop? Decided from the files of the finished points.

So it works whatever has started the points, and wherever they run, as long as they share the folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import final

from inbatch.errors import ConfigError
from inbatch.export.metrics_log import Series, read_metrics, series
from inbatch.sweep.points import POINT, Mode, read_points


def is_behind(
    own: Series, others: Sequence[Series], *, mode: Mode, min_points: int, min_step: int
) -> bool:
    """Whether the best value so far is worse than the median of the others' values at this step.

    The rule of Optuna's MedianPruner; Golovin et al. 2017, "Google Vizier".

    Args:
        own: the metric of this point; the last step is now.
        others: the metric of finished points. The value of one at a step is its last until then.
        mode: whether larger or smaller is better.
        min_points: others that must have a value.
        min_step: before this step nothing is behind.
    """
    if not own.steps or own.steps[-1] < min_step:
        return False
    now = own.steps[-1]
    at_step = [value for other in others if (value := _until(other, now)) is not None]
    if len(at_step) < min_points:
        return False
    if mode == "max":
        return max(own.values) < median(at_step)
    return min(own.values) > median(at_step)


@final
@dataclass(frozen=True, kw_only=True)
class MedianPruner:
    """Stops a point of a sweep at an evaluation at which it `is_behind`.

    Args:
        min_points: finished points to compare with; fewer stop nothing.
        min_step: the first optimizer step at which to stop.
    """

    min_points: int = 5
    min_step: int = 0

    def __post_init__(self) -> None:
        for name in ("min_points", "min_step"):
            least = 1 if name == "min_points" else 0
            if getattr(self, name) < least:
                raise ConfigError(
                    f"pruner.{name}={getattr(self, name)} is too small: set at least {least}"
                )

    def __call__(self, folder: Path, own: Series, *, metric: str, mode: Mode) -> bool:
        """Whether the point of a folder is to stop.

        Args:
            folder: of the point.
            own: the metric so far.
            metric: key of the evaluation.
            mode: whether larger or smaller is better.
        """
        others = [
            _values(other, metric)
            for other, point in read_points(folder.parent).items()
            if point.status == "completed" and other != folder
        ]
        return is_behind(own, others, mode=mode, min_points=self.min_points, min_step=self.min_step)


def check_is_point(folder: Path) -> None:
    """Whether a run can be pruned.

    Raises:
        ConfigError: it is no point of a sweep.
    """
    if not (folder / POINT).is_file():
        raise ConfigError("pruner compares points of a sweep: start one with --multirun")


def evaluated(folder: Path, metric: str) -> Series:
    """A metric of the trained model over the steps of a run."""
    return _values(folder, metric)


def _values(folder: Path, metric: str) -> Series:
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["step"] > 0]
    return series(rows, f"eval/{metric}")


def _until(found: Series, step: int) -> float | None:
    values = [value for at, value in zip(found.steps, found.values, strict=True) if at <= step]
    return values[-1] if values and math.isfinite(values[-1]) else None
