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
NAME = "default"  # peft's, of the one adapter that is there
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
    """

    settings: dict[str, Any]
    base: str | None
    base_digest: str

    def describe(self) -> str:
        """In words."""
        ends = (name.rpartition(".")[2] for name in self.settings["target_modules"])
        names = ", ".join(dict.fromkeys(ends))
        return (
            f"LoRA of rank {self.settings['r']}, alpha {self.settings['lora_alpha']:g}, on {names}"
        )


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


def load_adapter(backbone: PreTrainedModel, directory: Path) -> None:
    """Load the weights of adapters that are in place.

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
    found = {_in_module(name.removeprefix(_PREFIX)): value for name, value in saved.items()}
    found = {name: value for name, value in found.items() if not name.startswith(_POOLER)}
    own = {n: p for n, p in backbone.state_dict().items() if "lora_" in n}
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
    for name, value in found.items():
        own[name].copy_(value)


def merged(backbone: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the transformer with adapters added in; in float32, as 16 bits would round these off.

    Args:
        backbone: with adapters; its own weights are not read.
        state: whole weights by their names in it.
    """
    from peft.tuners.lora import LoraLayer

    plain = {
        name.replace(".base_layer.", "."): value
        for name, value in state.items()
        if "lora_" not in name
    }
    for name, layer in backbone.named_modules():
        if isinstance(layer, LoraLayer):
            down_rI, up_Or = (
                state[f"{name}.lora_{part}.{NAME}.weight"].float() for part in ("A", "B")
            )
            update_OI = layer.scaling[NAME] * (up_Or @ down_rI)
            if getattr(layer, "fan_in_fan_out", False):
                update_OI = update_OI.T
            plain[f"{name}.weight"] = plain[f"{name}.weight"].float() + update_OI
    return {
        name: value.float() if value.is_floating_point() else value for name, value in plain.items()
    }


def write_adapter(adapter: Adapter, path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a directory that peft and `add_adapter` load.

    Args:
        adapter: of the backbone.
        path: of an empty folder.
        state: weights of the backbone by name, of which those of the adapter are written.
    """
    weights = {
        _in_file(name): value.detach().cpu().contiguous()
        for name, value in state.items()
        if "lora_" in name
    }
    save_file(weights, path / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    known: dict[str, Any] = {"peft_type": "LORA", "task_type": "FEATURE_EXTRACTION", "bias": "none"}
    known |= {"base_model_name_or_path": adapter.base, "inference_mode": True}
    write_json(path / ADAPTER_CONFIG, {**known, **adapter.settings})


def _in_module(name: str) -> str:
    return re.sub(r"\.(lora_[AB])\.weight$", rf".\1.{NAME}.weight", name)


def _in_file(name: str) -> str:
    return _PREFIX + name.replace(f".{NAME}.weight", ".weight")
