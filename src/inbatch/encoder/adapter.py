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
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from transformers import PreTrainedModel

from inbatch.encoder.adapter_files import (
    ADAPTER_CONFIG,
    Adapter,
    load_adapter,
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


def choose_adapter(
    value: str | Mapping[str, Any] | None, beside: Path | None
) -> LoRA | Path | None:
    """What ``encoder.adapter`` asks for: a new adapter, or the directory of one to go on from.

    Args:
        value: of the key.
        beside: the model's directory, where it holds an adapter.

    Raises:
        ConfigError: it is neither "lora", nor keys of `LoRA`, nor a directory of an adapter; or there is an
            adapter already.
    """
    if value is None:
        return beside
    if beside is not None:
        raise ConfigError(
            "adapter",
            f"is given, and the model in {beside} has an adapter already",
            "leave it out, and that one trains on, or give a model without",
        )
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


def add_adapter(backbone: PreTrainedModel, asked: LoRA | Path, *, base: str | None) -> Adapter:
    """Freeze a transformer and put adapters beside its linear layers: new ones, or those of a directory.

    Args:
        backbone: with its weights.
        asked: what to put there.
        base: the name of the model.

    Raises:
        ConfigError: `peft` is not installed, no layer is a target, or the directory is of another kind of
            adapter or transformer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    except ImportError:
        raise ConfigError(
            "adapter", "needs the package peft", "run pip install 'inbatch[lora]'"
        ) from None
    digest = hash_weights(backbone.state_dict().items())
    settings = asked.peft_config() if isinstance(asked, LoRA) else saved_settings(asked)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an excluded pooler, which is not there
            inject_adapter_in_model(LoraConfig(**settings), backbone)
    except ValueError as error:
        raise ConfigError(
            "adapter.targets" if isinstance(asked, LoRA) else str(asked / ADAPTER_CONFIG),
            f"fits no layer of {type(backbone).__name__} ({str(error).splitlines()[0]})",
            f"name some of {', '.join(_linear_names(backbone))}",
            value=settings["target_modules"],
        ) from error
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    if isinstance(asked, Path):
        load_adapter(backbone, asked)
    # In full: an end such as "dense" would be found in a pooler too, which others have.
    layers = [name for name, module in backbone.named_modules() if isinstance(module, LoraLayer)]
    return Adapter({**settings, "target_modules": layers}, base, digest)


def _linear_names(backbone: nn.Module) -> list[str]:
    """The last parts of the names of linear layers."""
    found = (n.rpartition(".")[2] for n, m in backbone.named_modules() if isinstance(m, nn.Linear))
    return list(dict.fromkeys(found))
