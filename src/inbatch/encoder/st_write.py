"""Write an encoder as a sentence-transformers directory, in the older layout.

That layout loads in every release: sentence-transformers 6 reads it without a warning, and earlier
releases know neither the module types nor the keys that 6 writes. Weights are safetensors only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from inbatch.compat import saving_without_deepspeed
from inbatch.encoder.head import Dense
from inbatch.encoder.parts import EncoderParts
from inbatch.encoder.pooling import Pooling
from inbatch.encoder.st_read import (
    MODEL_FILE,
    MODULES_FILE,
    POOLING_NAMES,
    TRANSFORMER_FILE,
    WEIGHTS_FILE,
)
from inbatch.errors import ConfigError
from inbatch.files import replaced_folder, write_json

_OLDEST_FLAGS = tuple(POOLING_NAMES)[:4]  # the other settings of Pooling came in later releases


def write_directory(
    encoder: EncoderParts, path: str | Path, *, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Write a directory that `SentenceTransformer(path)` and `build_encoder(path)` load.

    The files are written beside `path` and moved there when complete, in place of an older model.
    Call it on one rank.

    Args:
        encoder: what to write.
        path: new, empty, or an older model, which is replaced entirely.
        state_dict: the encoder's weights under its own names where its parameters do not hold them
            (sharded strategies); by default its own.

    Raises:
        ConfigError: `path` is a file or a directory that holds something else.
    """
    path = Path(path)
    check_target(path)
    with replaced_folder(path) as folder:
        state = dict(encoder.state_dict() if state_dict is None else state_dict)
        _write_files(encoder, folder, state)


def module_configs(encoder: EncoderParts) -> list[tuple[str, dict[str, Any]]]:
    """List class name and settings of each module in order, with every key of the older layout."""
    width = encoder.backbone.config.hidden_size
    transformer = {
        "max_seq_length": encoder.tokenizer.max_length,
        "do_lower_case": encoder.tokenizer.do_lower_case,
    }
    return [
        ("Transformer", transformer),
        ("Pooling", _pooling_config(encoder.pooling, width)),
        *(
            ("Dense", _dense_config(m)) if isinstance(m, Dense) else ("Normalize", {})
            for m in encoder.head
        ),
    ]


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
    }


def _write_files(encoder: EncoderParts, path: Path, state: dict[str, Tensor]) -> None:
    backbone = {**_below(state, "backbone."), **encoder.pooler}
    with saving_without_deepspeed():
        encoder.backbone.save_pretrained(path, state_dict=backbone)
    encoder.tokenizer.hf.save_pretrained(path)
    modules = []
    for number, (kind, config) in enumerate(module_configs(encoder)):
        folder = "" if number == 0 else f"{number}_{kind}"
        modules.append(
            {
                "idx": number,
                "name": str(number),
                "path": folder,
                "type": f"sentence_transformers.models.{kind}",
            }
        )
        (path / folder).mkdir(exist_ok=True)
        if kind == "Transformer":
            write_json(path / TRANSFORMER_FILE, config)
        elif kind == "Pooling":
            write_json(path / folder / "config.json", _without_later_defaults(config))
        elif kind == "Dense":
            write_json(path / folder / "config.json", config)
            weights = _below(state, f"head.{number - 2}.")
            save_file(weights, path / folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_json(path / MODULES_FILE, modules)
    write_json(path / MODEL_FILE, _model_config(encoder))


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


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
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
