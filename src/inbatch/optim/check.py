"""Check that an optimizer takes its settings: before training, with one small parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from inbatch.errors import ConfigError

# Not every optimizer checks these itself, and none refuses infinity.
_NOT_NEGATIVE = ("lr", "weight_decay", "eps")


def check_optimizer(make: Callable[..., Optimizer], settings: Mapping[str, Any]) -> None:
    """Check the settings that most optimizers have, and all of them by making the optimizer once.

    Args:
        make: takes parameter groups and the settings; any callable that returns an optimizer.
        settings: keyword arguments.

    Raises:
        ConfigError: a setting, which the error's key names, is out of range, or the optimizer refuses
            what it is given.
    """
    for name in _NOT_NEGATIVE:
        value = settings.get(name)
        if isinstance(value, int | float) and not 0.0 <= value < math.inf:
            raise ConfigError(name, "is out of range", "set 0 or more", value=value)
    betas = settings.get("betas")
    if isinstance(betas, list) and not all(0.0 <= beta < 1.0 for beta in betas):
        raise ConfigError("betas", "is out of range", "set numbers from 0 to below 1", value=betas)
    parameter = nn.Parameter(torch.zeros(2, 2))  # a matrix: some optimizers take nothing else
    try:
        make([{"params": [parameter]}], **settings)
    except ConfigError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        name = getattr(make, "__name__", str(make))
        raise ConfigError(
            "optimizer", f"does not fit {name} ({reason})", "correct the key of it that is meant"
        ) from error
