"""The configuration of a transformer: read from a directory, or made from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from inbatch.errors import ConfigError, did_you_mean

# Errors of transformers about a configuration or a checkpoint that it cannot use.
TRANSFORMERS_ERRORS = (
    OSError,
    ValueError,
    ImportError,
    KeyError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)
_EXAMPLES = "bert, distilbert, mpnet, nomic_bert, xlm-roberta or modernbert"
_WITH_DECODER = ("t5", "mt5", "umt5")  # whose encoders stand on their own
_TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


def read_config(directory: Path, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Read the transformers configuration of a directory.

    Raises:
        ConfigError: config.json is missing or names an unknown architecture.
    """
    if not (directory / "config.json").is_file():
        raise ConfigError(
            "model", "holds no config.json", "give a model's directory", value=str(directory)
        )
    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except TRANSFORMERS_ERRORS as error:
        raise ConfigError(
            "model",
            f"has a config.json that cannot be used ({one_line(error)})",
            "give a model of an architecture that transformers knows",
            value=str(directory),
        ) from error


def make_config(options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Make a transformers configuration from ``{model_type: bert, hidden_size: 128, ...}``.

    The vocabulary's size and the special tokens' ids follow `tokenizer` unless given.

    Raises:
        ConfigError: `model_type` is missing or unknown, or the architecture has no such key.
    """
    given = dict(options)
    model_type = given.pop("model_type", None)
    try:
        known = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ConfigError(
            "config.model_type",
            "is not an architecture of transformers",
            f"give one such as {_EXAMPLES}",
            value=model_type,
        ) from error
    names = {*known.to_dict(), *known.attribute_map}
    for key in given:
        if key not in names:
            raise ConfigError(
                f"config.{key}",
                f"is not a valid key of {model_type}",
                did_you_mean(key, names) or f"use one of transformers' {type(known).__name__}",
            )
    given.setdefault("vocab_size", len(tokenizer))
    for name in _TOKEN_IDS:
        if name in names:
            given.setdefault(name, getattr(tokenizer, name, None))
    try:
        return AutoConfig.for_model(model_type, **given)
    except TRANSFORMERS_ERRORS as error:
        raise ConfigError(
            "config",
            f"makes no {model_type} ({one_line(error)})",
            "correct the key that is named",
            value=dict(options),
        ) from error


def auto_class(config: PretrainedConfig) -> type[AutoModel] | type[AutoModelForTextEncoding]:
    """What loads the encoder alone; AutoModel would give the T5 family its decoder too."""
    return AutoModelForTextEncoding if config.model_type in _WITH_DECODER else AutoModel


def check_architecture(config: PretrainedConfig) -> None:
    """Refuse an architecture that is not a text encoder.

    Raises:
        ConfigError: it is an encoder-decoder other than the T5 family, or a model of several modalities.
    """
    with_decoder = config.is_encoder_decoder and config.model_type not in _WITH_DECODER
    if with_decoder or not isinstance(getattr(config, "hidden_size", None), int):
        raise ConfigError(
            "config.model_type",
            "is not a text encoder",
            f"give one such as {_EXAMPLES}",
            value=config.model_type,
        )


def one_line(error: Exception) -> str:
    """Shorten the message of an error to fit into a sentence."""
    return " ".join(str(error).split())[:300].rstrip(".")
