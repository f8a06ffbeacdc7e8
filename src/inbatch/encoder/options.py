"""What all encoders are built with: layers behind the pooled vector, defaults, frozen parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from inbatch.encoder.backbone import Backbone, position_limit
from inbatch.encoder.head import Normalize, make_dense
from inbatch.encoder.pooling import Pooling
from inbatch.encoder.st_read import SavedEncoder
from inbatch.errors import ConfigError

_UNLIMITED = 10**9  # transformers states a tokenizer without limit as 1e30


def given(*values: Any) -> Any:
    """Return the first value that is not None."""
    return next((value for value in values if value is not None), None)


def make_head(
    saved: SavedEncoder,
    dense: Mapping[str, Any] | Literal[False] | None,
    normalize: bool | None,
    width: int,
) -> list[nn.Module]:
    """The saved layers, but where `dense` (False: none) or `normalize` is not None and says otherwise."""
    layers = list(saved.head)
    if dense is not None:
        layers = [layer for layer in layers if isinstance(layer, Normalize)]
        if isinstance(dense, Mapping):
            layers.insert(0, make_dense(width, dense))
    if normalize is not None:
        layers = [layer for layer in layers if not isinstance(layer, Normalize)]
        if normalize:
            layers.append(Normalize())
    return layers


def choose_pooling(
    saved: SavedEncoder,
    pooling: str | Sequence[str] | None,
    include_prompt: bool | None,
    config: PretrainedConfig,
) -> Pooling:
    """The given pooling; else the saved one, or that of the architecture."""
    architecture = (config.architectures or [""])[0]
    causal = architecture.endswith("ForCausalLM") and getattr(config, "is_causal", True)
    found = saved.pooling or Pooling(("last_token",) if causal else ("mean",))
    modes = given(pooling, found.modes)
    return Pooling(
        (modes,) if isinstance(modes, str) else tuple(modes),
        given(include_prompt, found.include_prompt),
    )


def choose_max_length(
    saved: SavedEncoder, given: int | None, backbone: Backbone, hf: PreTrainedTokenizerBase
) -> int:
    """The given length; else the saved one or that of tokenizer and config, within the positions.

    Raises:
        ConfigError: it is above the positions, or none is stated.
    """
    reach = position_limit(backbone.model)
    if given is not None:
        if reach is not None and given > reach:
            raise ConfigError(
                "max_length",
                f"is above the {reach} positions of {type(backbone.model).__name__}",
                f"set {reach} or less",
                value=given,
            )
        return given
    positions = getattr(backbone.model.config, "max_position_embeddings", None)
    stated = [hf.model_max_length, positions] if saved.max_length is None else [saved.max_length]
    known = [n for n in (*stated, reach) if n is not None and 0 < n < _UNLIMITED]
    if not known:
        raise ConfigError("max_length", "is stated by neither tokenizer nor transformer", "set it")
    return min(known)


def freeze_parameters(module: nn.Module, patterns: Sequence[str]) -> None:
    """Stop training the parameters that have a match of a regular expression in their name.

    Raises:
        ConfigError: an expression is malformed or matches no parameter.
    """
    for pattern in patterns:
        try:
            found = [p for name, p in module.named_parameters() if re.search(pattern, name)]
        except re.error as error:
            raise ConfigError(
                "freeze", f"is not a regular expression ({error})", "correct it", value=pattern
            ) from error
        if not found:
            first = next(name for name, _ in module.named_parameters())
            raise ConfigError(
                "freeze",
                "matches no parameter",
                f"correct it, names look like {first!r}",
                value=pattern,
            )
        for parameter in found:
            parameter.requires_grad_(False)
