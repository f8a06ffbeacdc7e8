"""Ingredients -> a model's directory with its card."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from inbatch.encoder.st_write import check_target
from inbatch.errors import ConfigError
from inbatch.files import fresh_folder, remove_abandoned, replaced_folder
from inbatch.merging.combine import Combine, mean, slerp
from inbatch.merging.compare import check_mergeable, describe, kept_settings
from inbatch.merging.inputs import Ingredient
from inbatch.merging.judge import Judge, Metrics
from inbatch.merging.soup import greedy
from inbatch.merging.weights import Key, module_folders, write_safetensors

Method = Literal["mean", "slerp", "greedy"]
RECORD = "merge.json"  # of what a merge has written, beside the model
#: Files of a model's directory that are written anew, or hold its weights in another form.
_NOT_COPIED = (
    *("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth"),
    *("*.h5", "*.msgpack", "*.onnx", "*.ot", "*.gguf", "README.md", "inbatch.json", ".*"),
)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What has been merged.

    shares: of each ingredient, 0 of one that a greedy soup leaves out.
    each, metrics: of the ingredients and of the merged model; {} where nothing was measured.
    metric: the one that decides.
    notes: settings that differ, in words.
    """

    ingredients: Sequence[Ingredient]
    shares: Sequence[float]
    each: Sequence[Metrics]
    metrics: Metrics
    metric: str | None
    notes: Sequence[str]


def merge(
    ingredients: Sequence[Ingredient],
    target: Path,
    *,
    method: Method,
    weights: Sequence[float] | None,
    judge: Judge,
    say: Callable[[str], None] = lambda line: None,
) -> Merged:
    """Merge models into a directory that sentence-transformers loads.

    One tensor of each model at a time is in memory, two of them in float32.

    Args:
        ingredients: the first one's settings, tokenizer and types of weights are kept.
        target: the directory; the model of an older merge, which has left RECORD beside it, is replaced.
        method: see `inbatch.config.merging.MergeConfig`.
        weights: share of each in a mean or on the arc, scaled to add up to one; None for equal shares.
        judge: measures the models; a greedy soup needs it.
        say: told of each step.

    Raises:
        ConfigError: the models do not go together, or with the method; weights that are not finite; a target
            with another model.
    """
    check_method(method, len(ingredients), weights, judged=bool(judge.evaluators))
    check_target(target)
    if target.resolve() in {ingredient.directory.resolve() for ingredient in ingredients}:
        raise ConfigError(
            "output_dir", "is that of a model to merge", "set another one", value=str(target.parent)
        )
    if target.is_dir() and not (target.parent / RECORD).is_file():
        raise ConfigError(
            "output_dir",
            f"holds a model that no merge has written (there is no {RECORD} beside it)",
            "set another one",
            value=str(target.parent),
        )
    remove_abandoned(target)
    notes = _compare(ingredients)
    each: list[Metrics] = [{} for _ in ingredients]
    with fresh_folder(target) as aside:  # for the models that are measured on the way

        def measured(places: Sequence[int]) -> Metrics:
            chosen = [ingredients[place] for place in places]
            candidate = aside / "model"
            shares = [1 / len(chosen)] * len(chosen)
            like = chosen[0] if len(chosen) == 1 else ingredients[0]
            write_merged(chosen, shares, candidate, combine=mean, like=like)
            try:
                return judge.measure(candidate)
            finally:
                shutil.rmtree(candidate)

        if judge.evaluators:
            for place, ingredient in enumerate(ingredients):
                each[place] = measured([place])
                say(f"{ingredient.name}  {_shown(each[place], judge.primary)}")
        shares = _shares(weights, len(ingredients))
        if method == "greedy":
            shares = _soup(each, measured, ingredients, judge, say)
        used = [place for place, share in enumerate(shares) if share > 0]
        write_merged(
            [ingredients[place] for place in used],
            [shares[place] for place in used],
            target,
            combine=slerp if method == "slerp" else mean,
            like=ingredients[0],
        )
    metrics = judge.measure(target) if judge.evaluators else {}
    return Merged(
        ingredients=ingredients,
        shares=shares,
        each=each,
        metrics=metrics,
        metric=judge.primary if judge.evaluators else None,
        notes=notes,
    )


def check_method(
    method: Method, count: int, weights: Sequence[float] | None, *, judged: bool
) -> None:
    """Check that a method can merge so many models.

    Raises:
        ConfigError: it takes another number, no weights, or needs data.
    """
    if method == "slerp" and count != 2:
        raise ConfigError(
            "method",
            f"takes two models, and models names {count}",
            "name two, or set method=mean",
            value=method,
        )
    if method == "greedy" and not judged:
        raise ConfigError("method", "needs a metric", "set data.eval=FILE", value=method)
    if weights is None:
        return
    if method == "greedy":
        raise ConfigError(
            "weights", "are not those of method=greedy, which averages", "leave them out"
        )
    if len(weights) != count:
        raise ConfigError(
            "weights",
            f"are not one for each of {count} models",
            "give as many",
            value=list(weights),
        )
    if not all(weight > 0 for weight in weights):
        raise ConfigError(
            "weights",
            "have a number that is not above 0",
            "leave that model out",
            value=list(weights),
        )


def write_merged(
    ingredients: Sequence[Ingredient],
    shares: Sequence[float],
    target: Path,
    *,
    combine: Combine,
    like: Ingredient,
) -> None:
    """Write the merged model: the files of `like` with the weights of all.

    Raises:
        ConfigError: a tensor of whole numbers, which has no mean, differs between the models, or another one
            is not finite.
    """
    entries = like.weights.entries
    by_file: dict[str, list[Key]] = {}
    for key, entry in entries.items():
        by_file.setdefault(entry.file, []).append(key)

    def merged(key: Key) -> Tensor:
        own = like.weights.read(key)
        tensors = (_finite(ingredient, key) for ingredient in ingredients)
        if own.is_floating_point():
            return combine(tensors, shares).to(own.dtype)
        for ingredient, tensor in zip(ingredients, tensors, strict=True):
            if not torch.equal(own, tensor):
                raise ConfigError(
                    "models",
                    f"cannot be merged, since {key} of {like.name} and {ingredient.name} are whole "
                    "numbers that differ",
                    "merge models that were trained from one and the same model",
                )
        return own

    with replaced_folder(target) as folder:
        _copy_settings(like.directory, folder)
        for file, keys in by_file.items():
            by_name = {key.name: key for key in keys}
            write_safetensors(
                folder / file,
                {key.name: entries[key] for key in keys},
                lambda name, by_name=by_name: merged(by_name[name]),  # type: ignore[misc]
            )
        _copy_index(like.directory, folder)


def _finite(ingredient: Ingredient, key: Key) -> Tensor:
    """One tensor of a model."""
    tensor = ingredient.weights.read(key)
    if tensor.is_floating_point() and tensor.numel():
        ends = (
            tensor.float() if tensor.element_size() == 1 else tensor
        )  # 8 bits have no order in torch
        if not all(torch.isfinite(end) for end in ends.aminmax()):  # NaN is both ends
            raise ConfigError(
                "models",
                f"cannot be merged, since {key} of {ingredient.name} is not finite",
                "leave that model out",
            )
    return tensor


def _compare(ingredients: Sequence[Ingredient]) -> list[str]:
    described = [
        describe(each.name, each.directory, each.weights, label=each.label) for each in ingredients
    ]
    notes = []
    for other in described[1:]:
        check_mergeable(described[0], other)
        notes += kept_settings(described[0], other)
    return notes


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    given = [1.0] * count if weights is None else list(weights)
    return [weight / sum(given) for weight in given]


def _soup(
    each: Sequence[Metrics],
    measured: Callable[[Sequence[int]], Metrics],
    ingredients: Sequence[Ingredient],
    judge: Judge,
    say: Callable[[str], None],
) -> list[float]:
    """The shares of a greedy soup."""
    metric = str(judge.primary)

    def measure(places: Sequence[int]) -> float:
        value = measured(places)[metric]
        say(f"{len(places)} models, the last {ingredients[places[-1]].name}  {metric} {value:.4f}")
        return value

    soup = greedy([metrics[metric] for metrics in each], measure, largest=judge.largest)
    return [1 / len(soup.kept) if place in soup.kept else 0.0 for place in range(len(each))]


def _shown(metrics: Metrics, metric: str | None) -> str:
    return f"{metric} {metrics[str(metric)]:.4f}"


def _copy_settings(source: Path, target: Path) -> None:
    """Copy what is no weight: settings and tokenizer, of the model and of its modules."""
    leave: Any = shutil.ignore_patterns(*_NOT_COPIED)
    for folder in dict.fromkeys(["", *module_folders(source)]):
        names = [path.name for path in (source / folder).iterdir() if path.is_file()]
        (target / folder).mkdir(parents=True, exist_ok=True)
        for name in {*names} - leave(str(source / folder), names):
            shutil.copyfile(source / folder / name, target / folder / name)


def _copy_index(source: Path, target: Path) -> None:
    """Copy the lists of weights that lie in several files, whose names and sizes stay the same."""
    for index in source.rglob("*.safetensors.index.json"):
        relative = index.relative_to(source)
        if (target / relative).parent.is_dir():
            shutil.copyfile(index, target / relative)
