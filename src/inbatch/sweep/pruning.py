"""Decides from the files of the other trials whether a trial is so far behind that it may stop.

This works however the trials were started and wherever they run, as long as they share the folder.
"""

from __future__ import annotations

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

    The rule of Optuna's MedianPruner (Golovin et al. 2017, "Google Vizier"), over all trials that have
    reached the step. Optuna compares with completed ones only, so that what was pruned no longer counts
    and the median only rises.

    Args:
        current: the metric of this trial; its last step is now.
        others: the metric of other trials. One that has ended or is still before this step does not count;
            the value of one that evaluates at other steps is its last until now.
        mode: whether larger or smaller is better.
        min_trials: others that must have a value.
        min_step: before this step nothing is behind.
    """
    if not current.steps or current.steps[-1] < min_step:
        return False
    now = current.steps[-1]
    at_step = [value for other in others if (value := _at(other, now)) is not None]
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
        min_trials: trials that have reached a step, pruned or not, to compare with; fewer stop nothing.
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

    def __call__(self, folder: Path, step: int, value: float, *, metric: str, mode: Mode) -> bool:
        """Decide whether the trial of a folder should stop.

        Args:
            folder: of the trial; has its evaluations before this one, those before a restart too.
            step: now.
            value: the metric now.
            metric: key of the evaluation.
            mode: whether larger or smaller is better.
        """
        own = evaluated(folder, metric)
        before = [at for at in own.steps if at < step]
        others = [
            evaluated(other, metric)
            for other, trial in read_trials(folder.parent).items()
            if trial.status != "failed" and other != folder
        ]
        return is_behind(
            Series([*before, step], [*own.values[: len(before)], value]),
            others,
            mode=mode,
            min_trials=self.min_trials,
            min_step=self.min_step,
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
    """A metric of the trained model over the steps of a run; empty before its first evaluation."""
    path = RunFolder(folder).metrics
    rows = [row for row in read_metrics(path) if row["step"] > 0] if path.is_file() else []
    return series(rows, f"eval/{metric}")


def _at(found: Series, step: int) -> float | None:
    """The value that a run had at a step; None where it has not reached it."""
    if not found.steps or found.steps[-1] < step:
        return None
    values = [value for at, value in zip(*found, strict=True) if at <= step]
    return values[-1] if values else None
