"""The directory of an adapter, as peft writes it, and adapters merged into the weights beside them.

Shape letters: O output and I input features of a layer, r rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from inbatch.encoder.st_layers import read_json, unreadable
from inbatch.errors import ConfigError
from inbatch.files import write_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_POOLER = "pooler."  # layers behind the token embeddings, which nothing here computes
_TAKEN = (
    *("r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules"),
    *("use_rslora", "fan_in_fan_out"),
)
NAME = "default"  # peft's, of the adapter that trains
BENEATH = "beneath_"  # begins the names of those that do not
_PREFIX = "base_model.model."  # of names in its files
# What changes the arithmetic of a layer, with the values that do not.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False,),
    # Others change the weights beside an adapter.
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
    "bias": ("none",),
    "modules_to_save": (None, []),
    "layer_replication": (None,),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "lora_bias": (False,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "use_qalora": (False,),
}


@final
@dataclass(frozen=True, slots=True)
class Adapter:
    """The adapter of a backbone.

    settings: of peft, JSON-able.
    base: name of the model that it was trained beside; None for one with random weights.
    base_digest: of the frozen weights, see `hash_weights`.
    beneath: how many others there are, which are frozen.
    """

    settings: dict[str, Any]
    base: str | None
    base_digest: str
    beneath: int = 0

    def describe(self) -> str:
        """In words."""
        ends = (name.rpartition(".")[2] for name in self.settings["target_modules"])
        names = ", ".join(dict.fromkeys(ends))
        others = f", beside {self.beneath} frozen" if self.beneath else ""
        rank, alpha = self.settings["r"], self.settings["lora_alpha"]
        return f"LoRA of rank {rank}, alpha {alpha:g}, on {names}{others}"


def saved_settings(directory: Path) -> dict[str, Any]:
    """The settings of an adapter that `LoraConfig` of peft takes.

    Raises:
        ConfigError: one of them is not supported.
    """
    config = read_json(directory / ADAPTER_CONFIG)
    for key, plain in _PLAIN.items():
        if key in config and config[key] not in plain:
            raise ConfigError(
                str(directory / ADAPTER_CONFIG),
                f"sets {key}={config[key]!r}, which is not supported",
                "merge it into its model with peft, and give that model",
            )
    given = {key: config[key] for key in _TAKEN if config.get(key) is not None}
    return {"r": 8, "lora_alpha": 8, **given}  # peft's own defaults


def base_of(directory: Path) -> tuple[str, str | None]:
    """Name and revision of the model that an adapter belongs to.

    Raises:
        ConfigError: the adapter does not say.
    """
    config = read_json(directory / ADAPTER_CONFIG)
    name = config.get("base_model_name_or_path")
    if not name:
        raise ConfigError(
            str(directory / ADAPTER_CONFIG),
            "names no base model",
            "give the base model as encoder.model, and this directory as encoder.adapter",
        )
    return name, config.get("revision")


@contextmanager
def without_adapter(directory: Path) -> Iterator[Path]:
    """The directory of a model, without the adapter beside its weights, which transformers would mix in."""
    if not (directory / ADAPTER_CONFIG).is_file():
        yield directory
        return
    with TemporaryDirectory() as folder:
        for file in directory.resolve().iterdir():
            if file.is_file() and not file.name.startswith("adapter_"):
                (Path(folder) / file.name).symlink_to(file)
        yield Path(folder)


def load_adapter(backbone: PreTrainedModel, directory: Path, *, name: str = NAME) -> None:
    """Load the weights of an adapter that is in place.

    Raises:
        ConfigError: there are none, or others.
    """
    file = directory / ADAPTER_WEIGHTS
    if not file.is_file():
        raise ConfigError(
            str(directory), f"holds no {ADAPTER_WEIGHTS}", "save it with peft, as safetensors"
        )
    try:
        saved = load_file(file)
    except SafetensorError as error:
        raise unreadable(file, error) from error
    found = {_in_module(n.removeprefix(_PREFIX), name): value for n, value in saved.items()}
    found = {n: value for n, value in found.items() if not n.startswith(_POOLER)}
    own = {n: p for n, p in backbone.state_dict().items() if "lora_" in n and f".{name}." in n}
    shapes = {name: value.shape for name, value in own.items()}
    if shapes != {name: value.shape for name, value in found.items()}:
        wrong = sorted(
            {
                n
                for n in (*found, *own)
                if n not in found or n not in own or shapes[n] != found[n].shape
            }
        )
        raise ConfigError(
            str(file),
            f"does not fit {type(backbone).__name__} ({', '.join(wrong[:3])}, ...)",
            "give the model that it was trained on as encoder.model",
        )
    for wanted, value in found.items():
        own[wanted].copy_(value)


def lora_layers(backbone: nn.Module) -> list[tuple[str, Any]]:
    """Names and layers of a transformer that adapters lie beside."""
    from peft.tuners.lora import LoraLayer

    return [(n, module) for n, module in backbone.named_modules() if isinstance(module, LoraLayer)]


def merged(backbone: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the transformer with adapters added in; in float32, as 16 bits would round these off.

    Args:
        backbone: with adapters; its own weights are not read.
        state: whole weights by their names in it.
    """
    plain = {
        name.replace(".base_layer.", "."): value
        for name, value in state.items()
        if "lora_" not in name
    }
    for name, layer in lora_layers(backbone):
        for adapter in layer.lora_A:
            down_rI, up_Or = _matrices(name, adapter, state)
            update_OI = layer.scaling[adapter] * (up_Or @ down_rI)
            if getattr(layer, "fan_in_fan_out", False):
                update_OI = update_OI.T
            plain[f"{name}.weight"] = plain[f"{name}.weight"].float() + update_OI
    return {
        name: value.float() if value.is_floating_point() else value for name, value in plain.items()
    }


def _matrices(layer: str, adapter: str, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of one adapter beside one layer, in float32: down to its rank, and up again."""
    down_rI, up_Or = (state[f"{layer}.lora_{part}.{adapter}.weight"].float() for part in "AB")
    return down_rI, up_Or


def write_adapter(
    adapter: Adapter, path: Path, backbone: nn.Module, state: Mapping[str, Tensor]
) -> None:
    """Write a directory that peft and `add_adapter` load: all adapters as one, where there are several.

    Args:
        adapter: of the backbone.
        path: of an empty folder.
        backbone: with adapters; its own weights are not read.
        state: weights of the backbone by name, of which those of adapters are written.
    """
    if adapter.beneath:
        settings, weights = _joined(adapter.settings, backbone, state)
    else:
        settings, weights = adapter.settings, {n: w for n, w in state.items() if "lora_" in n}
    save_file(
        {_in_file(name): value.detach().cpu().contiguous() for name, value in weights.items()},
        path / ADAPTER_WEIGHTS,
        metadata={"format": "pt"},
    )
    known: dict[str, Any] = {"peft_type": "LORA", "task_type": "FEATURE_EXTRACTION", "bias": "none"}
    known |= {"base_model_name_or_path": adapter.base, "inference_mode": True}
    write_json(path / ADAPTER_CONFIG, {**known, **settings})


def _joined(
    settings: Mapping[str, Any], backbone: nn.Module, state: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One adapter whose update is the sum of all: their matrices side by side.

    Its rank is the sum of theirs, in every layer; where a layer lacks one of them, there are zeros.
    """
    layers = lora_layers(backbone)
    ranks = {adapter: r for _, layer in layers for adapter, r in layer.r.items()}
    weights = {}
    for name, layer in layers:
        down, up = [], []
        for adapter, r in ranks.items():
            if adapter in layer.lora_A:
                down_rI, up_Or = _matrices(name, adapter, state)
                down.append(down_rI)
                up.append(layer.scaling[adapter] * up_Or)
            else:
                down.append(torch.zeros(r, layer.in_features))
                up.append(torch.zeros(layer.out_features, r))
        weights[f"{name}.lora_A.{NAME}.weight"] = torch.cat(down)
        weights[f"{name}.lora_B.{NAME}.weight"] = torch.cat(up, dim=1)
    rank = sum(ranks.values())
    names = {"target_modules": [name for name, _ in layers]}
    return {**settings, "r": rank, "lora_alpha": rank, "use_rslora": False, **names}, weights


def _in_module(name: str, adapter: str) -> str:
    return re.sub(r"\.(lora_[AB])\.weight$", rf".\1.{adapter}.weight", name)


def _in_file(name: str) -> str:
    return _PREFIX + name.replace(f".{NAME}.weight", ".weight")
