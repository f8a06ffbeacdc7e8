"""Sort parameters into groups of one learning rate and weight decay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from inbatch.errors import ConfigError

#: Patterns over lower-cased parameter names: biases, the scales of LayerNorm, RMSNorm and the like, and what
#: losses train.
NO_DECAY = ("bias", "norm", r"(?:^|[._])ln(?:[._]|\d|$)", "^loss_parameters[.]")


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate_mapping: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Put every trainable parameter in exactly one group of an optimizer.

    Biases, the scales of norms and the parameters of losses (`NO_DECAY`) have weight decay 0, the others the
    optimizer's own.

    Frozen parameters are left out, a parameter with two names counts once, no group is empty, and
    groups without a learning rate of their own come first.

    Args:
        named_parameters: as of ``Module.named_parameters``.
        learning_rate_mapping: {regex searched in the name: learning rate}; the last match wins.

    Raises:
        ConfigError: no parameter is trainable, a number is negative, or a pattern of the mapping sets
            the learning rate of none.
    """
    mapping = dict(learning_rate_mapping or {})
    _check_rates(mapping)
    patterns = [None, *mapping]
    buckets: dict[tuple[str | None, bool], list[nn.Parameter]] = {
        (pattern, decays): [] for pattern in patterns for decays in (True, False)
    }
    seen: set[int] = set()
    for name, parameter in named_parameters:
        if not parameter.requires_grad or id(parameter) in seen:
            continue
        seen.add(id(parameter))
        matches = [pattern for pattern in mapping if re.search(pattern, name)]
        decays = not any(re.search(pattern, name.lower()) for pattern in NO_DECAY)
        buckets[matches[-1] if matches else None, decays].append(parameter)
    if not seen:
        raise ConfigError("encoder.freeze", "leaves no parameter to train", "unfreeze some of them")
    for pattern in mapping:
        if not (buckets[pattern, True] or buckets[pattern, False]):
            raise ConfigError(
                f"learning_rate_mapping[{pattern!r}]",
                "sets no trainable parameter's learning rate",
                "correct it or remove it (of two patterns that match, the last wins)",
            )
    return [
        _group(parameters, None if pattern is None else mapping[pattern], decays=decays)
        for (pattern, decays), parameters in buckets.items()
        if parameters
    ]


def _group(parameters: list[nn.Parameter], lr: float | None, *, decays: bool) -> dict[str, Any]:
    """Make a group; for a key that it lacks it takes the optimizer's own value."""
    group: dict[str, Any] = {"params": parameters}
    if lr is not None:
        group["lr"] = lr
    if not decays:
        group["weight_decay"] = 0.0
    return group


def _check_rates(mapping: Mapping[str, float]) -> None:
    for pattern, lr in mapping.items():
        if lr < 0:
            raise ConfigError(
                f"learning_rate_mapping[{pattern!r}]", "is negative", "set 0 or more", value=lr
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"learning_rate_mapping[{pattern!r}]",
                f"is not a regular expression ({error})",
                "correct it",
            ) from error
