"""Read a sentence-transformers directory into this package's parts.

`modules.json` lists the modules in order: a Transformer, a Pooling, then any number of Dense and
Normalize; a StaticEmbedding in place of the first two is read by `static_files`. Both layouts are read:
the one that sentence-transformers 6 writes, and the older one (``sentence_transformers.models.*`` types,
``pooling_mode_*`` flags, ``max_seq_length`` in sentence_bert_config.json) that `st_write` writes. A setting
that would change the embeddings and that this package lacks is refused by name; none is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from inbatch.encoder.head import Dense, Normalize, load_dense
from inbatch.encoder.pooling import Pooling
from inbatch.errors import ConfigError

MODULES_FILE = "modules.json"
MODEL_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
WEIGHTS_FILE = "model.safetensors"
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

# sentence-transformers' flag: (its mode, this package's mode), in the order that flags concatenate.
POOLING_NAMES = {
    "pooling_mode_cls_token": ("cls", "cls"),
    "pooling_mode_max_tokens": ("max", "max"),
    "pooling_mode_mean_tokens": ("mean", "mean"),
    "pooling_mode_mean_sqrt_len_tokens": ("mean_sqrt_len_tokens", "mean_sqrt_len"),
    "pooling_mode_weightedmean_tokens": ("weightedmean", "weighted_mean"),
    "pooling_mode_lasttoken": ("lasttoken", "last_token"),
}

_TRANSFORMER_FILES = [TRANSFORMER_FILE] + [
    f"sentence_{name}_config.json"
    for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
_TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_KEYWORDS = [f"{kind}_args" for kind in ("model", "tokenizer", "config")] + [
    f"{kind}_kwargs" for kind in ("model", "processor", "config")
]
# Values of a setting under which the Transformer computes what this package computes.
_TRANSFORMER_ALLOWED: dict[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "modality_config": (_TEXT_ONLY,),
    "module_output_name": ("token_embeddings",),
    "unpad_inputs": (None, True, False),
    **dict.fromkeys(["query_length", "document_length", "query_expansion"], (None,)),
    **dict.fromkeys(["processing_kwargs", *_KEYWORDS], ({}, None)),
}
_EMBEDDING_ONLY: dict[str, tuple[Any, ...]] = {
    "module_input_name": ("sentence_embedding",),
    "module_output_name": ("sentence_embedding", None),
}


@dataclass(frozen=True, kw_only=True)
class SavedEncoder:
    """Settings of a directory besides the transformer; the defaults are those of a plain transformers one."""

    max_length: int | None = None
    do_lower_case: bool = False
    pooling: Pooling | None = None
    head: tuple[nn.Module, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str | None = None
    truncate_dim: int | None = None


def read_saved_encoder(
    directory: Path, *, weights: bool = True, trust_remote_code: bool = False
) -> tuple[Path, SavedEncoder]:
    """Read a sentence-transformers directory, or a plain transformers one (no modules.json).

    Args:
        directory: the one with modules.json.
        weights: load the head's weights, else leave them random.
        trust_remote_code: import pooling functions that the directory names.

    Returns:
        The directory of the transformer and its tokenizer, and the other settings.

    Raises:
        ConfigError: a module or a setting that this package lacks, a broken file, or weights that
            are missing, pickled or of another shape.
    """
    modules = saved_modules(directory)
    if not modules:
        return directory, SavedEncoder()
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or {*kinds[2:]} - {"Dense", "Normalize"}:
        raise ConfigError(
            str(directory / MODULES_FILE),
            f"lists the modules {kinds}",
            "give a model of a Transformer and a Pooling, or of a StaticEmbedding, then any Dense and "
            "Normalize",
        )
    (_, transformer), (_, pooling), *head = modules
    return transformer, SavedEncoder(
        pooling=_read_pooling(pooling, trust_remote_code=trust_remote_code),
        head=read_head(head, weights=weights),
        **_read_transformer(transformer),
        **read_model(directory),
    )


def saved_modules(directory: Path) -> list[tuple[str, Path]]:
    """Class name and folder of each module of a sentence-transformers directory; none without modules.json.

    Raises:
        ConfigError: a module of another package, a folder outside of the directory, or a broken file.
    """
    if not (directory / MODULES_FILE).is_file():
        return []
    return [
        (_kind(module["type"], directory), _inside(directory, module["path"]))
        for module in read_json(directory / MODULES_FILE)
    ]


def read_head(modules: Sequence[tuple[str, Path]], *, weights: bool) -> tuple[nn.Module, ...]:
    """The layers behind the pooled vector, each a Dense or a Normalize; with weights or random ones.

    Raises:
        ConfigError: a setting that this package lacks, or weights that are missing or of another shape.
    """
    readers: dict[str, Callable[[Path], nn.Module]] = {
        "Dense": lambda path: _read_dense(path, weights=weights),
        "Normalize": _read_normalize,
    }
    return tuple(readers[kind](path) for kind, path in modules)


def _read_transformer(path: Path) -> dict[str, Any]:
    files = [path / name for name in _TRANSFORMER_FILES if (path / name).is_file()]
    config = read_json(files[0]) if files else {}
    read = {
        "max_length": config.pop("max_seq_length", None),
        "do_lower_case": bool(config.pop("do_lower_case", False)),
    }
    for key in _KEYWORDS:
        (config.get(key) or {}).pop(
            "trust_remote_code", None
        )  # the caller's decision, not a file's
    _check_keys(config, _TRANSFORMER_ALLOWED, files[0] if files else path)
    return read


def _read_pooling(path: Path, *, trust_remote_code: bool) -> Pooling:
    config = read_json(path / "config.json")
    flags = [POOLING_NAMES[flag][1] for flag in POOLING_NAMES if config.pop(flag, False)]
    names = config.pop("pooling_mode", None)
    include_prompt = bool(config.pop("include_prompt", True))
    config.pop("embedding_dimension", config.pop("word_embedding_dimension", None))
    _check_keys(config, {}, path / "config.json")
    if names is None:
        return Pooling(tuple(flags) or ("mean",), include_prompt)
    ours = dict(POOLING_NAMES.values())
    modes = [names] if isinstance(names, str) else list(names)
    own = [mode for mode in modes if "." in mode]
    if own and not trust_remote_code:
        raise ConfigError(
            str(path / "config.json"),
            f"names the function {own[0]}, which would be imported",
            "set encoder.trust_remote_code=true if you trust it",
        )
    return Pooling(tuple(ours.get(mode, mode) for mode in modes), include_prompt)


def _read_dense(path: Path, *, weights: bool) -> Dense:
    config = read_json(path / "config.json")
    dense = Dense(
        config.pop("in_features"),
        config.pop("out_features"),
        bias=config.pop("bias", True),
        activation=config.pop("activation_function", "Tanh"),
    )
    _check_keys(config, {**_EMBEDDING_ONLY, "use_residual": (False,)}, path / "config.json")
    if not weights:
        return dense
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
    load_dense(dense, state, source=str(path / WEIGHTS_FILE))
    return dense


def unreadable(file: Path, error: SafetensorError) -> ConfigError:
    """The error for a file of safetensors that is cut short, or none."""
    return ConfigError(str(file), f"cannot be read ({error})", "copy or download it once more")


def _read_normalize(path: Path) -> Normalize:
    file = path / "config.json"
    _check_keys(read_json(file) if file.is_file() else {}, _EMBEDDING_ONLY, file)
    return Normalize()


def read_model(directory: Path) -> dict[str, Any]:
    """Prompts, similarity and dimensions of a directory, as fields of `SavedEncoder`."""
    file = directory / MODEL_FILE
    config = read_json(file) if file.is_file() else {}
    model_type = config.get("model_type") or "SentenceTransformer"
    if model_type != "SentenceTransformer":
        raise ConfigError(str(file), f"describes a {model_type}", "give a SentenceTransformer")
    return {
        "prompts": {name: text or "" for name, text in (config.get("prompts") or {}).items()},
        "default_prompt_name": config.get("default_prompt_name"),
        "similarity": config.get("similarity_fn_name"),
        "truncate_dim": config.get("truncate_dim"),
    }


def _kind(type_name: str, directory: Path) -> str:
    package, _, kind = type_name.rpartition(".")
    if not package.startswith("sentence_transformers."):
        raise ConfigError(
            str(directory / MODULES_FILE),
            f"lists the module {type_name}, which is not part of sentence-transformers",
            "give a model without custom modules",
        )
    return kind


def _inside(directory: Path, relative: str) -> Path:
    path = (directory / relative).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise ConfigError(
            str(directory / MODULES_FILE),
            f"names {relative!r}, outside the directory",
            "give a model whose modules lie inside its directory",
        )
    return directory / relative


def _check_keys(config: dict[str, Any], allowed: dict[str, tuple[Any, ...]], file: Path) -> None:
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
