"""The configuration of a transformer: read from a directory, or made from plain values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from inbatch.errors import ConfigError

# What transformers raises for a configuration or a checkpoint that it cannot use.
TRANSFORMERS_ERRORS = (
    OSError,
    ValueError,
    ImportError,
    KeyError,
    RuntimeError,
    StrictDataclassError,
)
_TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


def read_config(directory: Path, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The transformers configuration of a directory.

    Raises:
        ConfigError: no config.json, or one of an unknown architecture.
    """
    if not (directory / "config.json").is_file():
        raise ConfigError(
            f"path={str(directory)!r} holds no config.json: give a model's directory."
        )
    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except TRANSFORMERS_ERRORS as error:
        raise ConfigError(f"path={str(directory)!r}: {one_line(error)}.") from error


def make_config(options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """A transformers configuration from ``{model_type: bert, hidden_size: 128, ...}``.

    The vocabulary's size and the special tokens' ids follow `tokenizer` unless given.

    Raises:
        ConfigError: `model_type` is missing or unknown, or a key is none of that architecture's.
    """
    given = dict(options)
    model_type = given.pop("model_type", None)
    try:
        known = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ConfigError(
            f"config.model_type={model_type!r} is no architecture of transformers: "
            "give one such as bert, distilbert, mpnet, nomic_bert, xlm-roberta or modernbert."
        ) from error
    names = {*known.to_dict(), *known.attribute_map}
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]!r}" if near else f"see {type(known).__name__}"
            raise ConfigError(f"config.{key} is no setting of {model_type}: {hint}.")
    given.setdefault("vocab_size", len(tokenizer))
    for name in _TOKEN_IDS:
        if name in names:
            given.setdefault(name, getattr(tokenizer, name, None))
    try:
        return AutoConfig.for_model(model_type, **given)
    except TRANSFORMERS_ERRORS as error:
        raise ConfigError(f"config={dict(options)}: {one_line(error)}.") from error


def check_architecture(config: PretrainedConfig) -> None:
    """Refuse what is no text encoder.

    Raises:
        ConfigError: an encoder-decoder, or a model of several modalities.
    """
    if config.is_encoder_decoder or not isinstance(getattr(config, "hidden_size", None), int):
        raise ConfigError(
            f"model_type={config.model_type!r} is no text encoder: give one such as bert, "
            "distilbert, mpnet, nomic_bert, xlm-roberta or modernbert."
        )


def one_line(error: Exception) -> str:
    """The message of an error, shortened to fit into a sentence."""
    return " ".join(str(error).split())[:300].rstrip(".")
