"""The record of a trial: `trial.json` in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
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
        return _parameters(self.overrides)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What the trial is recognised by, see `settings_of`."""
        return settings_of(self.overrides)

    @property
    def succeeded(self) -> bool:
        """True if the trial has a model."""
        return self.status in ("completed", "pruned")


def settings_of(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Return what overrides set, the same for ``lr=1e-4 seed=1`` and ``++seed=1 lr=0.0001``.

    Two trials of one sweep with the same settings are the same trial.
    """
    removed = sorted((o, "") for o in overrides if o.startswith("~"))
    kept = _parameters([o for o in overrides if not o.startswith("~")])
    return [*removed, *sorted((key, _plain(value)) for key, value in kept.items())]


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
    found = find_trials(sweep)
    if not found:
        raise ConfigError(
            "sweep", "holds no trials", "give the folder of a --multirun", value=str(sweep)
        )
    return found


def find_trials(sweep: Path) -> dict[Path, Trial]:
    """The trials of a folder, which may have none, as `read_trials` gives them."""
    found = {folder: trial for folder in _folders(sweep) if (trial := read_trial(folder))}
    return dict(sorted(found.items(), key=lambda item: item[1].number))


def best_trial(trials: dict[Path, Trial]) -> Path | None:
    """The folder of the trial whose metric is best; None where no trial has one.

    Raises:
        ConfigError: see `ranked_trials`.
    """
    return next(iter(ranked_trials(trials)), None)


def ranked_trials(trials: dict[Path, Trial]) -> list[Path]:
    """The folders of the trials that have a model and its metric, the best first.

    Raises:
        ConfigError: the trials were chosen by different metrics.
    """
    ranked = {f: p for f, p in trials.items() if p.succeeded and p.result.value is not None}
    kinds = {(trial.result.metric, trial.result.mode) for trial in ranked.values()}
    if len(kinds) > 1:
        names = ", ".join(sorted(f"{metric} ({mode})" for metric, mode in kinds))
        raise ConfigError(
            "evaluation.best_metric", f"differs between the trials ({names})", "set one for all"
        )
    sign = -1.0 if ("max" in {mode for _, mode in kinds}) else 1.0
    return sorted(ranked, key=lambda folder: sign * (ranked[folder].result.value or 0.0))


def varied(trials: Sequence[Trial]) -> list[str]:
    """Parameters that differ between the trials, in the order of the command line."""
    names = dict.fromkeys(name for trial in trials for name in trial.parameters)
    return [name for name in names if len({trial.parameters.get(name) for trial in trials}) > 1]


def _parameters(overrides: Sequence[str]) -> dict[str, str]:
    pairs = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs}


def _plain(value: str) -> str:
    """A number in one form, other values as they are."""
    try:
        return repr(float(value))
    except ValueError:
        return value


def _folders(sweep: Path) -> Iterator[Path]:
    """Folders with a trial; nothing inside of one is looked at, since a run may just be replacing it."""
    for folder, inner, files in os.walk(sweep):  # follows no links, as to the best trial
        if TRIAL in files:
            inner.clear()
            yield Path(folder)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "delete it") from None


def _made(kind: Any, values: dict[str, Any]) -> Any:
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})
