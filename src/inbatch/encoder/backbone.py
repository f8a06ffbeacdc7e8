"""The transformer of an encoder: pretrained weights from a directory, or random ones from a config.

Data-parallel wrappers rely on every parameter of the module being used. So the pooler that classes such as
BERT's have after the token embeddings is removed, and its weights are kept only to be written back
(`Backbone.pooler`), so that other tools find a complete checkpoint.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from inbatch.encoder.adapter_files import without_adapter
from inbatch.encoder.transformer_config import (
    TRANSFORMERS_ERRORS,
    auto_class,
    check_architecture,
    one_line,
)
from inbatch.errors import ConfigError, did_you_mean

_DTYPES = ("float32", "bfloat16", "float16", "auto")
_POOLER = "pooler."


@dataclass(frozen=True)
class Backbone:
    """A transformer without its pooler, and the pooler's weights by their names in a checkpoint."""

    model: PreTrainedModel
    pooler: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Options for loading a transformer.

    Args:
        attention: "auto" or "varlen" (see `packing.prepare_packing`; padded texts take sdpa where the
            architecture has it, else eager), or one of transformers' attention implementations.
        dtype: of the parameters: float32, bfloat16, float16, or auto (as stored, or float32).
        trust_remote_code: run the Python code that a hub model brings along.
    """

    attention: str = "auto"
    dtype: str = "float32"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ConfigError(
                "dtype",
                f"is not one of {', '.join(_DTYPES)}",
                did_you_mean(self.dtype, _DTYPES) or "set one of them",
                value=self.dtype,
            )

    def keywords(self, *, random: bool) -> dict[str, Any]:
        """Make the keyword arguments for AutoModel."""
        dtype = "float32" if random and self.dtype == "auto" else self.dtype
        by_default = self.attention in ("auto", "varlen")
        chosen = {} if by_default else {"attn_implementation": self.attention}
        return {
            "dtype": "auto" if dtype == "auto" else getattr(torch, dtype),
            "trust_remote_code": self.trust_remote_code,
            **chosen,
        }


def random_backbone(config: PretrainedConfig, options: LoadOptions) -> Backbone:
    """Draw weights by the architecture's own initialisation from torch's global generator.

    Raises:
        ConfigError: the architecture is not a text encoder, or lacks the attention implementation.
    """
    _prepare(config)
    try:
        model = auto_class(config).from_config(config, **options.keywords(random=True))
    except TRANSFORMERS_ERRORS as error:
        raise ConfigError(
            "config",
            f"makes no {config.model_type} ({one_line(error)})",
            "change the key of it, or the option, that is named",
        ) from error
    return Backbone(model, _take_pooler(model))


def pretrained_backbone(
    directory: Path, config: PretrainedConfig, options: LoadOptions
) -> Backbone:
    """Load weights from a directory's safetensors files.

    Raises:
        ConfigError: there are none, or one of the architecture (other than the pooler's) is missing and
            would be random.
    """
    _prepare(config)
    if not any(directory.glob("*.safetensors")):
        raise _no_weights(directory)
    try:
        with without_adapter(directory) as folder:
            model, report = auto_class(config).from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                **options.keywords(random=False),
            )
    except TRANSFORMERS_ERRORS as error:
        raise ConfigError(
            "model",
            f"cannot be loaded ({one_line(error)})",
            "give a checkpoint that transformers can load",
            value=str(directory),
        ) from error
    missing = sorted(report["missing_keys"])
    random_weights = [name for name in missing if not name.startswith(_POOLER)]
    if random_weights:
        raise ConfigError(
            "model",
            f"lacks {len(random_weights)} weights of {type(model).__name__} "
            f"({', '.join(random_weights[:3])}, ...), which would be random",
            "give a complete checkpoint",
            value=str(directory),
        )
    pooler = _take_pooler(model)
    return Backbone(model, {} if missing else pooler)


def _no_weights(directory: Path) -> ConfigError:
    value = str(directory)
    if any(directory.glob("*.bin")):
        fix = "load and save them once with transformers, which writes model.safetensors"
        return ConfigError("model", "holds only pickled weights (.bin)", fix, value=value)
    fix = "give a directory with model.safetensors, or set pretrained=false"
    return ConfigError("model", "holds no weights", fix, value=value)


def position_limit(model: PreTrainedModel) -> int | None:
    """Count the tokens that learned position embeddings cover; None for an architecture without them."""
    positions = _position_embeddings(model)
    if positions is None:
        return None
    padding_id = position_padding_id(model)
    skipped = 0 if padding_id is None else padding_id + 1
    return positions.num_embeddings - skipped


def position_padding_id(model: PreTrainedModel) -> int | None:
    """Find the padding id that positions start after, as in RoBERTa; None where they start at 0."""
    positions = _position_embeddings(model)
    return None if positions is None else positions.padding_idx


def check_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose ids do not fit the transformer.

    Raises:
        ConfigError: there are more ids than embeddings, positions start after another padding id, or
            token types other than 0 are set (which this package does not pass on).
    """
    rows = next(model.get_input_embeddings().parameters()).shape[0]
    if len(tokenizer) > rows:
        raise ConfigError(
            "tokenizer",
            f"has {len(tokenizer)} ids and the transformer {rows} embeddings",
            "give the tokenizer that the transformer was trained with",
        )
    positions = _position_embeddings(model)
    if positions is not None and positions.padding_idx not in (None, tokenizer.pad_token_id):
        raise ConfigError(
            "tokenizer",
            f"pads with id {tokenizer.pad_token_id} and {type(model).__name__} counts positions "
            f"around id {positions.padding_idx}",
            "give a tokenizer that pads with that id",
        )
    if any(tokenizer("a").get("token_type_ids", [])):
        raise ConfigError(
            "tokenizer",
            f"({type(tokenizer).__name__}) sets token types, which are not supported",
            "give an architecture without them, such as bert or xlm-roberta",
        )


def enable_gradient_checkpointing(model: PreTrainedModel) -> None:
    """Recompute each layer in the backward pass instead of keeping its activations.

    Raises:
        ConfigError: the architecture does not support it.
    """
    if not model.supports_gradient_checkpointing:
        raise ConfigError(
            "gradient_checkpointing",
            f"is not supported by {type(model).__name__}",
            "set it to false",
            value=True,
        )
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _prepare(config: PretrainedConfig) -> None:
    check_architecture(config)
    if getattr(config, "use_cache", False):
        config.use_cache = False  # decoders would keep keys and values that nothing reads


def _take_pooler(model: PreTrainedModel) -> dict[str, Tensor]:
    pooler = getattr(model, "pooler", None)
    if not isinstance(pooler, nn.Module):
        return {}
    if "add_pooling_layer" not in inspect.signature(type(model).__init__).parameters:
        pooler.requires_grad_(False)  # such a class may call it, so it stays in place
        return {}
    state = pooler.state_dict()
    model.register_module("pooler", None)
    return {_POOLER + key: value.detach() for key, value in state.items()}


def _position_embeddings(model: PreTrainedModel) -> nn.Embedding | None:
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None
