"""Write an encoder as a sentence-transformers directory, in the older layout.

That layout loads in every release: sentence-transformers 6 reads it without a warning, and earlier
releases know neither the module types nor the keys that 6 writes. Weights are safetensors only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from inbatch.compat import saving_without_deepspeed
from inbatch.encoder.adapter_files import merged, write_adapter
from inbatch.encoder.head import Dense, Dropout, LayerNorm
from inbatch.encoder.parts import EncoderParts, TransformerParts
from inbatch.encoder.pooling import Pooling
from inbatch.encoder.st_layers import CNN_FILE, WEIGHTS_FILE, read_json
from inbatch.encoder.st_read import MODEL_FILE, MODULES_FILE, POOLING_NAMES, TRANSFORMER_FILE
from inbatch.encoder.token_layers import CNN, WeightedLayerPooling
from inbatch.errors import ConfigError
from inbatch.files import replaced_folder, write_json

ADAPTER_FOLDER = "adapter"  # in the directory of a model that has been merged with it
_OLDEST_FLAGS = tuple(POOLING_NAMES)[:4]  # the other settings of Pooling came in later releases


Weights = dict[str, Tensor]
WriteModule = Callable[[Path, Weights], None]  # a module's files, from all weights


class Module(NamedTuple):
    """A module of a model in the older layout."""

    kind: str  # its class
    config: dict[str, Any]  # every key
    folder: str
    write: WriteModule


def write_directory(
    encoder: EncoderParts,
    modules: Sequence[Module],
    path: str | Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a directory that `SentenceTransformer(path)` and `build_encoder(path)` load.

    The files are written beside `path` and moved there when complete, in place of an older model.
    Call it on one rank.

    Args:
        encoder: what to write.
        modules: what it consists of, in order.
        path: new, empty, or an older model, which is replaced entirely.
        state_dict: the encoder's weights under its own names where its parameters do not hold them
            (sharded strategies); by default its own.

    Raises:
        ConfigError: `path` is a file or a directory that holds something else.
    """
    path = Path(path)
    check_target(path)
    listed = [
        {
            "idx": number,
            "name": str(number),
            "path": module.folder,
            "type": f"sentence_transformers.models.{module.kind}",
        }
        for number, module in enumerate(modules)
    ]
    with replaced_folder(path) as folder:
        state = dict(encoder.state_dict() if state_dict is None else state_dict)
        for module in modules:
            (folder / module.folder).mkdir(exist_ok=True)
            module.write(folder / module.folder, state)
        write_json(folder / MODULES_FILE, listed)
        write_json(folder / MODEL_FILE, _model_config(encoder))


def transformer_modules(encoder: TransformerParts) -> list[Module]:
    """The modules of an encoder around a transformer."""
    settings = {
        "max_seq_length": encoder.tokenizer.max_length,
        "do_lower_case": encoder.tokenizer.do_lower_case,
    }

    def write_backbone(path: Path, state: Weights) -> None:
        own, adapter = weights_below(state, "backbone."), encoder.adapter
        whole = {**own, **encoder.pooler}
        if adapter is not None:
            whole = merged(encoder.backbone, whole)
        with saving_without_deepspeed():
            encoder.backbone.save_pretrained(path, state_dict=whole)
        if adapter is not None:
            config = read_json(path / "config.json")
            write_json(path / "config.json", {**config, "dtype": "float32"})  # as merged
        if adapter is not None and adapter.base is not None:
            (path / ADAPTER_FOLDER).mkdir()
            write_adapter(adapter, path / ADAPTER_FOLDER, encoder.backbone, own)
        encoder.tokenizer.hf.save_pretrained(path)
        write_json(path / TRANSFORMER_FILE, settings)

    tokens = head_modules(encoder.token_head, first=1, prefix="token_head", of="token_embeddings")
    place = 1 + len(tokens)
    pooling = _pooling_config(encoder.pooling, encoder.token_width)
    return [
        Module("Transformer", settings, "", write_backbone),
        *tokens,
        Module(
            "Pooling",
            pooling,
            f"{place}_Pooling",
            lambda path, _: write_json(path / "config.json", _without_later_defaults(pooling)),
        ),
        *head_modules(encoder.head, first=place + 1),
    ]


def head_modules(
    layers: nn.Sequential, *, first: int, prefix: str = "head", of: str = "sentence_embedding"
) -> list[Module]:
    """The modules of layers behind the pooled vector, or behind the tokens.

    Args:
        layers: of `head`.
        first: the place of the first among the model's modules.
        prefix: what their weights are called in the encoder.
        of: what they take, by sentence-transformers' name.
    """
    return [
        _layer_module(layer, f"{prefix}.{number}.", first + number, of)
        for number, layer in enumerate(layers)
    ]


def _layer_module(layer: nn.Module, prefix: str, place: int, of: str) -> Module:
    kind, config = type(layer).__name__, _layer_config(layer, of)

    def write(path: Path, state: Weights) -> None:
        if config:
            write_json(path / (CNN_FILE if kind == "CNN" else "config.json"), config)
        weights = weights_below(state, prefix)
        if weights:
            save_file(weights, path / WEIGHTS_FILE, metadata={"format": "pt"})

    return Module(kind, config, f"{place}_{kind}", write)


def _layer_config(layer: nn.Module, of: str) -> dict[str, Any]:
    if isinstance(layer, Dense):
        names = {} if of == "sentence_embedding" else {"module_input_name": of}
        return _dense_config(layer) | names
    if isinstance(layer, LayerNorm):
        return {"dimension": layer.norm.normalized_shape[0]}
    if isinstance(layer, CNN):
        return {
            "in_word_embedding_dimension": layer.in_features,
            "out_channels": layer.channels,
            "kernel_sizes": layer.kernel_sizes,
        }
    if isinstance(layer, WeightedLayerPooling):
        return {
            "word_embedding_dimension": layer.dimension,
            "num_hidden_layers": layer.num_layers,
            "layer_start": layer.first,
        }
    return {"dropout": layer.dropout_layer.p} if isinstance(layer, Dropout) else {}


def _pooling_config(pooling: Pooling, width: int) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in POOLING_NAMES.values()}
    flags = {flag: ours in pooling.modes for flag, (_, ours) in POOLING_NAMES.items()}
    in_order = tuple(POOLING_NAMES[flag][1] for flag, on in flags.items() if on)
    if pooling.modes == in_order:
        return {
            "word_embedding_dimension": width,
            **flags,
            "include_prompt": pooling.include_prompt,
        }
    # Flags have one order of concatenation; another order needs the list of release 6. A function of
    # another package is written by its dotted name, which this package alone can read.
    return {
        "embedding_dimension": width,
        "pooling_mode": [names.get(mode, mode) for mode in pooling.modes],
        "include_prompt": pooling.include_prompt,
    }


def _dense_config(dense: Dense) -> dict[str, Any]:
    return {
        "in_features": dense.linear.in_features,
        "out_features": dense.linear.out_features,
        "bias": dense.linear.bias is not None,
        "activation_function": dense.activation,
        **({"use_residual": True} if dense.adds_input else {}),
    }


def _model_config(encoder: EncoderParts) -> dict[str, Any]:
    # Without the key "sentence_transformers" no release warns that it is older than the model.
    config: dict[str, Any] = {
        "__version__": {"transformers": transformers.__version__, "pytorch": torch.__version__},
        "prompts": _prompts(encoder),
        "default_prompt_name": encoder.default_prompt_name,
        "similarity_fn_name": encoder.similarity,
    }
    if encoder.truncate_dim is not None:
        config["truncate_dim"] = encoder.truncate_dim
    return config


def _prompts(encoder: EncoderParts) -> dict[str, str]:
    """The prompts; that of documents also as "document", the only name that release 6 looks up."""
    document = encoder.prompt_for("document")
    return {**encoder.prompts, "document": document} if document else dict(encoder.prompts)


def _without_later_defaults(config: dict[str, Any]) -> dict[str, Any]:
    later = {**dict.fromkeys(POOLING_NAMES, False), "include_prompt": True}
    return {
        key: value
        for key, value in config.items()
        if key in _OLDEST_FLAGS or key not in later or value != later[key]
    }


def weights_below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose name begins with a prefix, without it, on the CPU."""
    return {
        key.removeprefix(prefix): value.detach().cpu().contiguous()
        for key, value in state.items()
        if key.startswith(prefix)
    }


def check_target(path: Path) -> None:
    """Make sure that a model may be written to a path.

    Raises:
        ConfigError: it is a file or a directory that holds something else.
    """
    if path.is_file() or (
        path.is_dir() and any(path.iterdir()) and not (path / MODULES_FILE).is_file()
    ):
        raise ConfigError(
            "path", "holds something other than a model", "name a new directory", value=str(path)
        )
