"""What the user names -> ingredients: models, checkpoints, runs, and the best points of a sweep."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import torch

from inbatch.callbacks.ema import STATE as AVERAGE
from inbatch.encoder.resolve import resolve_directory
from inbatch.errors import ConfigError
from inbatch.export.model_name import local_name
from inbatch.folder.named import is_model
from inbatch.folder.paths import RunFolder
from inbatch.folder.saved import problem_of, step_of_name
from inbatch.merging.weights import CheckpointWeights, SavedWeights, Weights
from inbatch.sweep.trials import find_trials, ranked_trials

_ENCODER = "encoder."
_SHARDED = "checkpoint/mp_rank_00_model_states.pt"


@dataclass(frozen=True)
class Ingredient:
    """A model to merge.

    name: as the user finds it.
    label: what a card calls it: nothing of this machine.
    directory: settings and tokenizer.
    weights: its tensors.
    """

    name: str
    label: str
    directory: Path
    weights: Weights


def find_ingredients(models: Any, *, best: int | None) -> list[Ingredient]:
    """The models that `models` names, in its order; those of a sweep the best first.

    Args:
        models: a model's directory or hub name, a run's folder, a checkpoint, a sweep's folder, a pattern of
            paths, or a list of these.
        best: points that a sweep's folder stands for.

    Raises:
        ConfigError: one is none of these, or there are fewer than two in all.
    """
    names = [models] if isinstance(models, str) else models
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            "models", "is not a list of paths", "set models=[MODEL,MODEL,...]", value=models
        )
    paths = [path for name in names for path in _expanded(name)]
    found = [each for path in paths for each in _read(path, best)]
    if best is not None and not any(_is_sweep(Path(path)) for path in paths):
        raise ConfigError(
            "best", "has no sweep to take from", "name its folder in models", value=best
        )
    if len(found) < 2:
        raise ConfigError(
            "models", "names one model", "name at least two, or a sweep's folder", value=models
        )
    return found


def _expanded(name: str) -> list[str]:
    """The paths of a pattern; a link to another one of them, as last.ckpt is, is not another model."""
    if not has_magic(name) or Path(name).exists():
        return [name]
    paths = sorted(glob(name))
    if not paths:
        raise ConfigError("models", "matches nothing", "correct the pattern", value=name)
    inside = {Path(path).resolve() for path in paths if not Path(path).is_symlink()}
    return [p for p in paths if not (Path(p).is_symlink() and Path(p).resolve() in inside)]


def _read(name: str, best: int | None) -> Iterator[Ingredient]:
    path = Path(name).expanduser()
    if ".ckpt" in path.name and path.exists():
        yield _checkpoint(path.resolve() if path.is_symlink() else path)
    elif not path.is_dir() or is_model(path):
        directory = resolve_directory(name, field="models")
        yield Ingredient(name, local_name(name), directory, SavedWeights(directory))
    elif is_model(RunFolder(path).model):
        yield _run(path, local_name(str(path.resolve())))
    elif _is_sweep(path):
        yield from _best_of(path, best)
    else:
        raise ConfigError(
            "models",
            "holds no model, run or sweep",
            "give a model, a run's folder, a checkpoint or the folder of a --multirun",
            value=name,
        )


def _is_sweep(path: Path) -> bool:
    return path.is_dir() and not is_model(path) and bool(find_trials(path))


def _run(folder: Path, label: str) -> Ingredient:
    model = RunFolder(folder).model
    return Ingredient(str(model), label, model, SavedWeights(model))


def _best_of(sweep: Path, best: int | None) -> Iterator[Ingredient]:
    if best is None:
        raise ConfigError(
            "best", "is not set, and models names a sweep", "set best=3 for its three best models"
        )
    trials = find_trials(sweep)
    ranked = [folder for folder in ranked_trials(trials) if is_model(RunFolder(folder).model)]
    if len(ranked) < best:
        raise ConfigError(
            "best",
            f"is more than the {len(ranked)} models with a metric in {sweep}",
            f"set {len(ranked)} or less" if ranked else "give a sweep with data.eval",
            value=best,
        )
    for folder in ranked[:best]:
        yield _run(folder, f"{local_name(str(sweep.resolve()))} trial {trials[folder].number}")


def _checkpoint(path: Path) -> Ingredient:
    """A checkpoint of a run, whose exported model says what the weights are those of."""
    problem = problem_of(path)
    if problem is not None:
        raise ConfigError(str(path), problem, "leave it out, or give another one")
    run = path.absolute().parents[1]
    template = RunFolder(run).model
    if not is_model(template):
        raise ConfigError(
            str(path),
            f"has no model beside its folder ({template}) that says what architecture it is of",
            "let its run export one, or copy both together",
        )
    state = _averaged_or_trained(path)
    step = step_of_name(path)
    label = local_name(str(run)) + ("" if step is None else f" at step {step:,}")
    return Ingredient(str(path), label, template, CheckpointWeights(path, state, template))


def _averaged_or_trained(path: Path) -> dict[str, Any]:
    """The encoder's weights in a checkpoint: the averages where the run has taken them."""
    file = path / _SHARDED if path.is_dir() else path
    unreadable = ConfigError(
        str(path),
        "holds its weights in shards that only the strategy that wrote them reads",
        f"merge the model of its run, {path.absolute().parents[1]}",
    )
    if not file.is_file():
        raise unreadable
    try:
        entries = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise unreadable from error
    found = (
        entries.get("state_dict") or entries.get("module") if isinstance(entries, Mapping) else None
    )
    if not isinstance(found, Mapping):
        raise ConfigError(
            str(path), "is no checkpoint of a run", "give OUTPUT_DIR/checkpoints/*.ckpt"
        )
    state = {k.removeprefix(_ENCODER): v for k, v in found.items() if k.startswith(_ENCODER)}
    if any("lora_" in name for name in state):
        raise ConfigError(
            str(path),
            "holds an adapter without the weights beside it",
            f"merge the model of its run, {path.absolute().parents[1]}",
        )
    return state | ((entries.get(AVERAGE) or {}).get("weights") or {})
