"""The record of a trial: `trial.json` in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from inbatch.errors import ConfigError
from inbatch.files import write_json
from inbatch.folder.paths import TRIAL, RunFolder

Status = Literal["running", "completed", "pruned", "failed", "stopped"]
Mode = Literal["max", "min"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a run that has ended: `result.json`.

    metric, value, step: the evaluation metric that chooses the model, its best value and when that was;
        None without evaluation.
    mode: whether larger or smaller is better.
    pruned: whether the run stopped early because it was behind.
    """

    metric: str | None = None
    mode: Mode = "max"
    value: float | None = None
    step: int | None = None
    pruned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial of a sweep.

    number: counts from 0 in the order of the sweep.
    overrides: of the command line, as Hydra has them.
    status: "running" also stays where a process was killed.
    error: why it failed, in one line.
    seconds: how long it has run.
    """

    number: int
    overrides: tuple[str, ...]
    status: Status = "running"
    result: Result = Result()
    seconds: float | None = None
    error: str | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The overrides as {key: value}."""
        pairs = (override.lstrip("+~").partition("=") for override in self.overrides)
        return {key: value for key, _, value in pairs}

    @property
    def succeeded(self) -> bool:
        """True if the trial has a model."""
        return self.status in ("completed", "pruned")


def write_trial(trial: Trial, folder: Path) -> None:
    """Write `trial.json`, whole or not at all."""
    write_json(RunFolder(folder).trial, asdict(trial))


def write_result(result: Result, folder: Path) -> None:
    """Write `result.json`, whole or not at all."""
    write_json(RunFolder(folder).result, asdict(result))


def read_result(folder: Path) -> Result:
    """The result that a run has written."""
    return _made(Result, _read(RunFolder(folder).result))


def read_trial(folder: Path) -> Trial | None:
    """The trial of a folder; None where the folder has no trial."""
    if not (RunFolder(folder).trial).is_file():
        return None
    values = _read(RunFolder(folder).trial)
    trial = _made(Trial, values)
    return replace(
        trial, overrides=tuple(trial.overrides), result=_made(Result, values.get("result", {}))
    )


def read_trials(sweep: Path) -> dict[Path, Trial]:
    """The trials of a sweep by folder, in their order.

    Raises:
        ConfigError: the folder has no trials, or a file cannot be read.
    """
    # The link to the best trial is not another trial.
    folders = [path.parent for path in sweep.glob(f"**/{TRIAL}") if not _through_link(path, sweep)]
    found = {folder: trial for folder in folders if (trial := read_trial(folder)) is not None}
    if not found:
        raise ConfigError(
            "sweep", "holds no trials", "give the folder of a --multirun", value=str(sweep)
        )
    return dict(sorted(found.items(), key=lambda item: item[1].number))


def best_trial(trials: dict[Path, Trial]) -> Path | None:
    """The folder of the trial whose metric is best; None where no trial has one.

    Raises:
        ConfigError: the trials were chosen by different metrics.
    """
    ranked = {f: p for f, p in trials.items() if p.succeeded and p.result.value is not None}
    if not ranked:
        return None
    kinds = {(trial.result.metric, trial.result.mode) for trial in ranked.values()}
    if len(kinds) > 1:
        names = ", ".join(sorted(f"{metric} ({mode})" for metric, mode in kinds))
        raise ConfigError(
            "evaluation.best_metric", f"differs between the trials ({names})", "set one for all"
        )
    ((_, mode),) = kinds
    sign = 1.0 if mode == "max" else -1.0
    return max(ranked, key=lambda folder: sign * (ranked[folder].result.value or 0.0))


def varied(trials: Sequence[Trial]) -> list[str]:
    """Parameters that differ between the trials, in the order of the command line."""
    names = dict.fromkeys(name for trial in trials for name in trial.parameters)
    return [name for name in names if len({trial.parameters.get(name) for trial in trials}) > 1]


def _through_link(path: Path, sweep: Path) -> bool:
    parents = [parent for parent in path.parents if parent.is_relative_to(sweep)]
    return any(parent.is_symlink() for parent in parents if parent != sweep)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "delete it") from None


def _made(kind: Any, values: dict[str, Any]) -> Any:
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})
