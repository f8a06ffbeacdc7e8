"""Decides from the files of finished trials whether a trial is so far behind that it may stop.

This works however the trials were started and wherever they run, as long as they share the folder.
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
from inbatch.folder.paths import RunFolder
from inbatch.sweep.trials import Mode, read_trials


def is_behind(
    current: Series, others: Sequence[Series], *, mode: Mode, min_trials: int, min_step: int
) -> bool:
    """Tell whether the best value so far is worse than the median of the others' values at this step.

    The rule of Optuna's MedianPruner; Golovin et al. 2017, "Google Vizier".

    Args:
        current: the metric of this trial; its last step is now.
        others: the metric of finished trials. The value of one at a step is its last until then.
        mode: whether larger or smaller is better.
        min_trials: others that must have a value.
        min_step: before this step nothing is behind.
    """
    if not current.steps or current.steps[-1] < min_step:
        return False
    now = current.steps[-1]
    at_step = [value for other in others if (value := _until(other, now)) is not None]
    if len(at_step) < min_trials:
        return False
    if mode == "max":
        return max(current.values) < median(at_step)
    return min(current.values) > median(at_step)


@final
@dataclass(frozen=True, kw_only=True)
class MedianPruner:
    """Stops a trial of a sweep at an evaluation at which it `is_behind`.

    Args:
        min_trials: finished trials to compare with; fewer stop nothing.
        min_step: the first optimizer step at which to stop.
    """

    min_trials: int = 5
    min_step: int = 0

    def __post_init__(self) -> None:
        for name in ("min_trials", "min_step"):
            least = 1 if name == "min_trials" else 0
            if getattr(self, name) < least:
                raise ConfigError(
                    f"pruner.{name}",
                    f"is below {least}",
                    f"set at least {least}",
                    value=getattr(self, name),
                )

    def __call__(self, folder: Path, current: Series, *, metric: str, mode: Mode) -> bool:
        """Decide whether the trial of a folder should stop.

        Args:
            folder: of the trial.
            current: the metric so far.
            metric: key of the evaluation.
            mode: whether larger or smaller is better.
        """
        others = [
            _values(other, metric)
            for other, trial in read_trials(folder.parent).items()
            if trial.status == "completed" and other != folder
        ]
        return is_behind(
            current, others, mode=mode, min_trials=self.min_trials, min_step=self.min_step
        )


def check_is_trial(folder: Path) -> None:
    """Check that a run can be pruned.

    Raises:
        ConfigError: it is not a trial of a sweep.
    """
    if not RunFolder(folder).trial.is_file():
        raise ConfigError(
            "pruner",
            "compares the trials of a sweep, and this run is not one",
            "start one with --multirun",
        )


def evaluated(folder: Path, metric: str) -> Series:
    """A metric of the trained model over the steps of a run."""
    return _values(folder, metric)


def _values(folder: Path, metric: str) -> Series:
    rows = [row for row in read_metrics(RunFolder(folder).metrics) if row["step"] > 0]
    return series(rows, f"eval/{metric}")


def _until(found: Series, step: int) -> float | None:
    values = [value for at, value in zip(found.steps, found.values, strict=True) if at <= step]
    return values[-1] if values and math.isfinite(values[-1]) else None
