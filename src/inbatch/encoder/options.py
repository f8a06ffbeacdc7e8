"""What all encoders are built with: layers behind the pooled vector, defaults, frozen parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from inbatch.encoder.head import Normalize, make_dense
from inbatch.encoder.st_read import SavedEncoder
from inbatch.errors import ConfigError


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
