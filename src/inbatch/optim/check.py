"""Would an optimizer take its settings? Asked before training, with one small parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from inbatch.errors import ConfigError

_NOT_NEGATIVE = ("lr", "weight_decay", "eps")


def check_optimizer(
    make: Callable[..., Optimizer], settings: Mapping[str, Any], *, field: str = "optimizer"
) -> None:
    """Check the usual settings by name, and all of them by making the optimizer once.

    Args:
        make: takes parameter groups and the settings.
        settings: keyword arguments.
        field: where they stand, for messages.

    Raises:
        ConfigError: a setting out of range, or one that the optimizer refuses.
    """
    for name in _NOT_NEGATIVE:
        value = settings.get(name)
        if isinstance(value, int | float) and not 0.0 <= value < math.inf:
            raise ConfigError(f"{field}.{name}={value} is out of range: set 0 or more")
    betas = settings.get("betas")
    if isinstance(betas, list) and not all(0.0 <= beta < 1.0 for beta in betas):
        raise ConfigError(f"{field}.betas={betas} is out of range: set numbers from 0 to below 1")
    parameter = nn.Parameter(torch.zeros(2, 2))  # a matrix: some optimizers take nothing else
    try:
        make([{"params": [parameter]}], **settings)
    except ConfigError as error:  # of this package's own: begins with the key
        raise ConfigError(f"{field}.{error}") from error
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        name = getattr(make, "__name__", str(make))
        raise ConfigError(
            f"{field} does not fit {name} ({reason}): correct the key of {field} that is meant"
        ) from error
