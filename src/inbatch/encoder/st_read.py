"""Read a sentence-transformers directory into this package's parts.

`modules.json` lists the modules in order: a Transformer, any layers of its tokens (WeightedLayerPooling, CNN,
Dense), a Pooling, then any number of Dense, Normalize, LayerNorm and Dropout (`st_layers`); a StaticEmbedding
in place of the Transformer and the Pooling is read by `static_files`. Both layouts are read: the one that
sentence-transformers 6 writes, and the older one (``sentence_transformers.models.*`` types,
``pooling_mode_*`` flags, ``max_seq_length`` in sentence_bert_config.json) that `st_write` writes. A setting
that would change the embeddings and that this package lacks is refused by name; none is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from inbatch.encoder.pooling import Pooling
from inbatch.encoder.st_layers import check_keys, read_head, read_json
from inbatch.errors import ConfigError

MODULES_FILE = "modules.json"
MODEL_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
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
_TOKENS = ("CNN", "Dense")
_HEAD = ("Dense", "Normalize", "LayerNorm", "Dropout")
# Arguments of loading that change no embedding here.
_HARMLESS = {
    *("attn_implementation", "use_cache", "low_cpu_mem_usage", "device_map", "use_safetensors"),
    *("cache_dir", "local_files_only", "token", "use_fast", "trust_remote_code"),
}


@dataclass(frozen=True, kw_only=True)
class SavedEncoder:
    """Settings of a directory besides the transformer; the defaults are those of a plain transformers one."""

    max_length: int | None = None
    do_lower_case: bool = False
    token_head: tuple[nn.Module, ...] = ()
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
    place = kinds.index("Pooling") if "Pooling" in kinds else 0
    # The mean of hidden states would pass over what a layer in front of it has made.
    between = kinds[2:place] if kinds[1:2] == ["WeightedLayerPooling"] else kinds[1:place]
    if (
        place == 0
        or kinds[0] != "Transformer"
        or {*between} - {*_TOKENS}
        or {*kinds[place + 1 :]} - {*_HEAD}
    ):
        raise ConfigError(
            str(directory / MODULES_FILE),
            f"lists the modules {kinds}",
            "give a model of a Transformer (with any WeightedLayerPooling, then any of "
            f"{', '.join(_TOKENS)}) and a Pooling, or of a StaticEmbedding, then any of {', '.join(_HEAD)}",
        )
    (_, transformer), *tokens = modules[:place]
    return transformer, SavedEncoder(
        token_head=read_head(tokens, weights=weights, of="token_embeddings"),
        pooling=_read_pooling(modules[place][1], trust_remote_code=trust_remote_code),
        head=read_head(modules[place + 1 :], weights=weights),
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


def _read_transformer(path: Path) -> dict[str, Any]:
    files = [path / name for name in _TRANSFORMER_FILES if (path / name).is_file()]
    config = read_json(files[0]) if files else {}
    read = {
        "max_length": config.pop("max_seq_length", None),
        "do_lower_case": bool(config.pop("do_lower_case", False)),
    }
    for key in _KEYWORDS:
        given = config.get(key) or {}
        kept = {name: value for name, value in given.items() if name not in _HARMLESS}
        for name in (
            "torch_dtype",
            "dtype",
        ):  # the type that weights have here where nothing else is set
            if str(kept.get(name, "")).removeprefix("torch.") == "float32":
                del kept[name]
        config[key] = kept
    check_keys(config, _TRANSFORMER_ALLOWED, files[0] if files else path)
    return read


def _read_pooling(path: Path, *, trust_remote_code: bool) -> Pooling:
    config = read_json(path / "config.json")
    flags = [POOLING_NAMES[flag][1] for flag in POOLING_NAMES if config.pop(flag, False)]
    names = config.pop("pooling_mode", None)
    include_prompt = bool(config.pop("include_prompt", True))
    config.pop("embedding_dimension", config.pop("word_embedding_dimension", None))
    check_keys(config, {}, path / "config.json")
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
