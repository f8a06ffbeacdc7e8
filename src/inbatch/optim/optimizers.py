"""Optimizers that need more than their class; `conf/optimizer` names the classes of others.

Each file of `conf/optimizer` is a partial that takes the groups of `parameter_groups`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch.optim import Adam, AdamW

from inbatch import compat
from inbatch.errors import ConfigError

ParameterGroups = Iterable[dict[str, Any]]
AdamT = TypeVar("AdamT", bound=Adam)


def adamw(
    params: ParameterGroups,
    *,
    lr: float,
    betas: Sequence[float],
    eps: float,
    weight_decay: float,
    fused: bool | None = None,
) -> AdamW:
    """AdamW with decoupled weight decay (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101).

    Args:
        params: groups of `parameter_groups`.
        lr: learning rate at factor 1 of the schedule.
        betas: decay of the running mean and of the running square of the gradient.
        eps: added to the denominator.
        weight_decay: for groups that set none.
        fused: one kernel for the whole step; None takes it where every parameter's device has it.
    """
    groups, settings = _settings(params, lr, betas, eps, weight_decay, fused)
    return _unscaled_before_step(AdamW(groups, **settings))


def adam(
    params: ParameterGroups,
    *,
    lr: float,
    betas: Sequence[float],
    eps: float,
    weight_decay: float,
    fused: bool | None = None,
) -> Adam:
    """Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980).

    Weight decay is part of the gradient; arguments as for `adamw`.
    """
    groups, settings = _settings(params, lr, betas, eps, weight_decay, fused)
    return _unscaled_before_step(Adam(groups, **settings))


def can_fuse(groups: ParameterGroups) -> bool:
    """Tell whether torch's fused kernels take every parameter."""
    return all(
        parameter.device.type in ("cuda", "cpu") and torch.is_floating_point(parameter)
        for group in groups
        for parameter in group["params"]
    )


def _settings(
    params: ParameterGroups,
    lr: float,
    betas: Sequence[float],
    eps: float,
    weight_decay: float,
    fused: bool | None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    groups = list(params)
    if len(betas) != 2:
        raise ConfigError("betas", "is not a pair of numbers", "set both", value=list(betas))
    beta1, beta2 = betas
    settings = {
        "lr": lr,
        "betas": (beta1, beta2),
        "eps": eps,
        "weight_decay": weight_decay,
        "fused": can_fuse(groups) if fused is None else fused,
    }
    return groups, settings


def _unscaled_before_step(optimizer: AdamT) -> AdamT:
    """Make a gradient scaler unscale before the step, as for optimizers that are not fused.

    A fused optimizer would unscale inside its step, and clipping would see fp16's scaled gradients.
    """
    compat.unscale_before_step(optimizer)
    return optimizer
