"""Whether models can be merged: one architecture, tokenizer, list of modules, names and shapes.

Settings that no weight depends on (prompts, pooling, similarity, length) may differ; the first model's stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbatch.encoder.head import Dense
from inbatch.encoder.st_read import SavedEncoder, read_saved_encoder
from inbatch.encoder.tokenize import TextTokenizer, load_tokenizer
from inbatch.encoder.transformer_config import read_config
from inbatch.errors import ConfigError, in_yaml
from inbatch.guide.fingerprint import NO_INFLUENCE, hash_tokenizer
from inbatch.merging.weights import Weights

_KEPT = ("prompts", "default_prompt_name", "pooling", "similarity", "truncate_dim", "max_length")


@dataclass(frozen=True)
class Described:
    """What is compared of a model; `label` is its name in a card."""

    name: str
    label: str
    saved: SavedEncoder
    modules: list[str]
    config: dict[str, Any]
    tokenizer: str
    weights: Weights


def describe(name: str, directory: Path, weights: Weights, *, label: str) -> Described:
    """Read what is compared of a model.

    Args:
        name, label: for errors, and for notes in a card.
        directory: with its settings.
        weights: its tensors.

    Raises:
        ConfigError: it cannot be read.
    """
    transformer, saved = read_saved_encoder(directory, weights=False)
    config = read_config(transformer).to_dict()
    hf = load_tokenizer(transformer, trust_remote_code=False)
    return Described(
        name,
        label,
        saved,
        ["Transformer", *map(_module, saved.token_head), "Pooling", *map(_module, saved.head)],
        {key: value for key, value in config.items() if key not in NO_INFLUENCE},
        hash_tokenizer(TextTokenizer(hf, 2**30, saved.do_lower_case))
        + f", do_lower_case={saved.do_lower_case}",
        weights,
    )


def check_mergeable(first: Described, other: Described) -> None:
    """Refuse two models that differ in what their weights depend on.

    Raises:
        ConfigError: it names the first difference.
    """
    for what, (ours, theirs) in _differences(first, other):
        raise ConfigError(
            "models",
            f"cannot be merged, since {first.name} has {what}{ours} and {other.name} has {theirs}",
            "merge models that were trained from one and the same model",
        )


def kept_settings(first: Described, other: Described) -> list[str]:
    """The settings of the first model that the merged one keeps, and that the other has otherwise."""
    ours, theirs = (_settings(each.saved) for each in (first, other))
    return [
        f"{name} of {first.label} is kept ({in_yaml(ours[name])}), {other.label} has {in_yaml(theirs[name])}"
        for name in _KEPT
        if ours[name] != theirs[name]
    ]


def _differences(first: Described, other: Described) -> Iterator[tuple[str, tuple[str, str]]]:
    """What differs, and both values in words."""
    if first.modules != other.modules:
        yield "the modules ", (", ".join(first.modules), ", ".join(other.modules))
    for key in first.config | other.config:
        ours, theirs = first.config.get(key), other.config.get(key)
        if ours != theirs:
            yield f"{key} ", (in_yaml(ours), in_yaml(theirs))
    if first.tokenizer != other.tokenizer:
        yield "", ("a tokenizer", "another one")
    ours_by_name, theirs_by_name = first.weights.entries, other.weights.entries
    for name in {**ours_by_name, **theirs_by_name}:
        one, two = (_shape(by_name, name) for by_name in (ours_by_name, theirs_by_name))
        if one != two:
            yield f"the weight {name} ", (one, two)


def _shape(entries: Mapping[Any, Any], key: Any) -> str:
    return f"of shape {list(entries[key].shape)}" if key in entries else "not at all"


def _module(module: Any) -> str:
    if not isinstance(module, Dense):
        return type(module).__name__
    linear = module.linear
    bias = "" if linear.bias is not None else ", no bias"
    beside = ", beside its input" if module.adds_input else ""
    activation = module.activation.rsplit(".", maxsplit=1)[-1]
    return f"Dense({linear.in_features} to {linear.out_features}, {activation}{bias}{beside})"


def _settings(saved: SavedEncoder) -> dict[str, Any]:
    pooling = saved.pooling
    pooled = (
        None if pooling is None else [*pooling.modes, f"include_prompt={pooling.include_prompt}"]
    )
    return {**{name: getattr(saved, name) for name in _KEPT}, "pooling": pooled}
