"""Layers of a sentence-transformers directory, behind the pooled vector or behind the tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from inbatch.encoder.head import Dense, Dropout, LayerNorm, Normalize, load_layer
from inbatch.encoder.token_layers import CNN, WeightedLayerPooling
from inbatch.errors import ConfigError

WEIGHTS_FILE = "model.safetensors"
CNN_FILE = "cnn_config.json"


def read_head(
    modules: Sequence[tuple[str, Path]], *, weights: bool, of: str = "sentence_embedding"
) -> tuple[nn.Module, ...]:
    """The layers behind the pooled vector, or behind the tokens; with weights or random ones.

    Args:
        modules: kind and folder of each.
        weights: whether to load theirs.
        of: what they take, by sentence-transformers' name.

    Raises:
        ConfigError: a setting that this package lacks, or weights that are missing or of another shape.
    """
    readers: dict[str, Callable[[Path, str], nn.Module]] = {
        "Dense": _read_dense,
        "Normalize": _read_normalize,
        "LayerNorm": _read_layer_norm,
        "Dropout": _read_dropout,
        "CNN": _read_cnn,
        "WeightedLayerPooling": _read_layer_pooling,
    }
    layers = []
    for kind, path in modules:
        layer = readers[kind](path, of)
        if weights and layer.state_dict():
            _load_weights(layer, path)
        layers.append(layer)
    return tuple(layers)


def _read_dense(path: Path, of: str) -> Dense:
    config = read_json(path / "config.json")
    dense = Dense(
        config.pop("in_features"),
        config.pop("out_features"),
        bias=config.pop("bias", True),
        activation=config.pop("activation_function", "Tanh"),
        residual=config.pop("use_residual", False),
    )
    taken = config.pop("module_input_name", "sentence_embedding")
    check_keys({"module_input_name": taken, **config}, _only(of), path / "config.json")
    return dense


def _only(of: str) -> dict[str, tuple[Any, ...]]:
    """Names of what a layer takes and gives."""
    return {"module_input_name": (of,), "module_output_name": (of, None)}


def _load_weights(layer: nn.Module, path: Path) -> None:
    if not (path / WEIGHTS_FILE).is_file():
        raise ConfigError(
            str(path),
            f"holds no {WEIGHTS_FILE}",
            "load and save the model once with sentence-transformers, which writes it",
        )
    try:
        state = load_file(path / WEIGHTS_FILE)
    except SafetensorError as error:
        raise unreadable(path / WEIGHTS_FILE, error) from error
    load_layer(layer, state, source=str(path / WEIGHTS_FILE))


def unreadable(file: Path, error: SafetensorError) -> ConfigError:
    """The error for a file of safetensors that is cut short, or none."""
    return ConfigError(str(file), f"cannot be read ({error})", "copy or download it once more")


def _read_normalize(path: Path, of: str) -> Normalize:
    file = path / "config.json"
    check_keys(read_json(file) if file.is_file() else {}, _only(of), file)
    return Normalize()


def _read_layer_norm(path: Path, of: str) -> LayerNorm:
    config = read_json(path / "config.json")
    layer = LayerNorm(config.pop("dimension"))
    check_keys(config, {}, path / "config.json")
    return layer


def _read_dropout(path: Path, of: str) -> Dropout:
    config = read_json(path / "config.json")
    layer = Dropout(config.pop("dropout", 0.2))
    check_keys(config, {}, path / "config.json")
    return layer


def _read_cnn(path: Path, of: str) -> CNN:
    file = path / CNN_FILE
    config = read_json(file)
    width = _renamed(config, "in_embedding_dimension", "in_word_embedding_dimension")
    sizes = config.pop("kernel_sizes")
    # Others give a text more or fewer outputs than it has tokens.
    if any(size % 2 == 0 for size in sizes):
        raise ConfigError(
            str(file),
            f"sets kernel_sizes={sizes}, where each has to be odd",
            "give a model without it",
        )
    layer = CNN(width, config.pop("out_channels"), sizes)
    check_keys(config, {"stride_sizes": (None, [1] * len(sizes))}, file)
    return layer


def _read_layer_pooling(path: Path, of: str) -> WeightedLayerPooling:
    config = read_json(path / "config.json")
    width = _renamed(config, "embedding_dimension", "word_embedding_dimension")
    layer = WeightedLayerPooling(width, config.pop("num_hidden_layers"), config.pop("layer_start"))
    check_keys(config, {}, path / "config.json")
    return layer


def _renamed(config: dict[str, Any], name: str, older: str) -> Any:
    """Take out a setting that earlier releases call otherwise."""
    return config.pop(name) if name in config else config.pop(older)


def check_keys(config: dict[str, Any], allowed: dict[str, tuple[Any, ...]], file: Path) -> None:
    """Refuse a setting that is not one of those allowed, under which embeddings are those of this package.

    Raises:
        ConfigError: it is not.
    """
    for key, value in config.items():
        if value not in allowed.get(key, ()):
            raise ConfigError(
                str(file),
                f"sets {key}={value!r}, which is not supported",
                "give a model without it",
            )


def read_json(file: Path) -> Any:
    """What a JSON file of a model holds.

    Raises:
        ConfigError: it is missing or broken.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            str(file), f"cannot be read as JSON ({error})", "give a complete model"
        ) from error
