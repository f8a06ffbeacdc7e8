"""LoRA: small matrices that train beside the frozen linear layers of a transformer.

A layer W gets ``W x + alpha / rank * B A x`` (Hu et al. 2021, https://arxiv.org/abs/2106.09685). `peft` makes
and computes such layers inside the backbone, whose class and other names stay. Adapters are float32 at least,
whatever the type of the frozen weights.

Shape letters: O output and I input features of a layer, r rank.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from transformers import PreTrainedModel

from inbatch.encoder.adapter_files import (
    ADAPTER_CONFIG,
    BENEATH,
    NAME,
    Adapter,
    load_adapter,
    lora_layers,
    saved_settings,
)
from inbatch.encoder.hashes import hash_weights
from inbatch.errors import ConfigError, did_you_mean


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA:
    """Keys of ``encoder.adapter``.

    Args:
        rank: r, columns of B and rows of A.
        alpha: updates are scaled by ``alpha / rank``; None takes twice the rank.
        dropout: probability of zeroing what goes into an adapter, in training.
        targets: ends of dotted names of the linear layers that get one; None takes all of the transformer.

    Raises:
        ConfigError: a number that is out of range.
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError("adapter.rank", "is too small", "set at least 1", value=self.rank)
        if self.alpha is not None and not self.alpha > 0:
            raise ConfigError(
                "adapter.alpha", "is not above 0", "set twice the rank or so", value=self.alpha
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                "adapter.dropout", "is not from 0 to below 1", "set 0.05 or so", value=self.dropout
            )

    def peft_config(self) -> dict[str, Any]:
        """As keys of peft's `LoraConfig`."""
        alpha = 2 * self.rank if self.alpha is None else self.alpha
        targets = [self.targets] if isinstance(self.targets, str) else self.targets
        return {
            "r": self.rank,
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "target_modules": "all-linear" if targets is None else [*targets],
        }


@final
@dataclass(frozen=True, slots=True)
class AskedAdapter:
    """What ``encoder.adapter`` asks for.

    trained: a new adapter, or the directory of one to go on from.
    beneath: directories of others, whose updates stay as they are.
    """

    trained: LoRA | Path
    beneath: tuple[Path, ...] = ()


def choose_adapter(
    value: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None, beside: Path | None
) -> AskedAdapter | None:
    """Read ``encoder.adapter``: one adapter, or a list of which the last one trains.

    Args:
        value: of the key.
        beside: the model's directory, where it holds an adapter.

    Raises:
        ConfigError: it is neither "lora", nor keys of `LoRA`, nor a directory of an adapter, nor a list of
            directories that ends in one of these; or there is an adapter already.
    """
    if value is None:
        return None if beside is None else AskedAdapter(beside)
    if beside is not None:
        raise ConfigError(
            "adapter",
            f"is given, and the model in {beside} has an adapter already",
            f"leave it out, and that one trains on, or set encoder.adapter=[{beside},lora] and the model "
            "without it",
        )
    if isinstance(value, str | Mapping):
        return AskedAdapter(_one(value))
    if not value:
        raise ConfigError("adapter", "names no adapter", "set lora, or leave it out", value=[])
    *beneath, last = value
    return AskedAdapter(_one(last), tuple(map(_directory, beneath)))


def _directory(value: str | Mapping[str, Any]) -> Path:
    path = Path(value).expanduser() if isinstance(value, str) else None
    if path is None or not (path / ADAPTER_CONFIG).is_file():
        raise ConfigError(
            "adapter",
            f"is no directory with {ADAPTER_CONFIG}, as each of a list is but the last, which trains",
            "name directories of adapters first",
            value=value,
        )
    return path


def _one(value: str | Mapping[str, Any]) -> LoRA | Path:
    if isinstance(value, str):
        if value == "lora":
            return LoRA()
        path = Path(value).expanduser()
        if not (path / ADAPTER_CONFIG).is_file():
            raise ConfigError(
                "adapter",
                f"is neither lora nor a directory with {ADAPTER_CONFIG}",
                "set lora, keys such as {rank: 16}, or the directory of an adapter",
                value=value,
            )
        return path
    known = [field.name for field in fields(LoRA)]
    for key in value:
        if key not in known:
            raise ConfigError(
                f"adapter.{key}",
                "is not a key of a LoRA adapter",
                did_you_mean(key, known) or f"choose from {', '.join(known)}",
            )
    try:
        return LoRA(**value)
    except TypeError:
        wrong = next(key for key, each in value.items() if not isinstance(each, int | float))
        raise ConfigError(
            f"adapter.{wrong}", "is not a number", "set one", value=value[wrong]
        ) from None


def add_adapter(backbone: PreTrainedModel, asked: AskedAdapter, *, base: str | None) -> Adapter:
    """Freeze a transformer and put adapters beside its linear layers: new ones, or those of a directory.

    Args:
        backbone: with its weights.
        asked: what to put there.
        base: the name of the model.

    Raises:
        ConfigError: `peft` is not installed, no layer is a target, or the directory is of another kind of
            adapter or transformer.
    """
    if find_spec("peft") is None:
        raise ConfigError("adapter", "needs the package peft", "run pip install 'inbatch[lora]'")
    # Before there are adapters, whose matrices are linear layers too.
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    for number, path in enumerate(asked.beneath):
        settings = {**saved_settings(path), "lora_dropout": 0.0}
        _inject(backbone, settings, linear, name=f"{BENEATH}{number}", source=path)
        load_adapter(backbone, path, name=f"{BENEATH}{number}")
    digest = hash_weights(backbone.state_dict().items())
    trained = asked.trained
    settings = trained.peft_config() if isinstance(trained, LoRA) else saved_settings(trained)
    source = None if isinstance(trained, LoRA) else trained
    _inject(backbone, settings, linear, name=NAME, source=source)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(f".{NAME}." in name and "lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    if source is not None:
        load_adapter(backbone, source)
    layers = [name for name, layer in lora_layers(backbone) if NAME in layer.lora_A]
    # In full: an end such as "dense" would be found in a pooler too, which others have.
    return Adapter({**settings, "target_modules": layers}, base, digest, len(asked.beneath))


def _inject(
    backbone: PreTrainedModel,
    settings: Mapping[str, Any],
    linear: Sequence[str],
    *,
    name: str,
    source: Path | None,
) -> None:
    """Put new matrices beside layers, and use them with those that are there."""
    from peft import LoraConfig, inject_adapter_in_model

    every = settings["target_modules"] == "all-linear"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an excluded pooler, which is not there
            config = LoraConfig(**{**settings, **({"target_modules": [*linear]} if every else {})})
            inject_adapter_in_model(config, backbone, adapter_name=name)
    except ValueError as error:
        ends = dict.fromkeys(each.rpartition(".")[2] for each in linear)
        raise ConfigError(
            "adapter.targets" if source is None else str(source / ADAPTER_CONFIG),
            f"fits no layer of {type(backbone).__name__} ({str(error).splitlines()[0]})",
            f"name some of {', '.join(ends)}",
            value=settings["target_modules"],
        ) from error
    for _, layer in lora_layers(backbone):
        layer.set_adapter([*layer.lora_A])
