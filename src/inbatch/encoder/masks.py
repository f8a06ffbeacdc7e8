"""Attention masks of padded texts, made without asking a GPU whether there is any padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionMaskInterface

_ASKING = ("sdpa", "eager")  # implementations whose mask is left out where nothing is padded

MakeMask = Callable[..., Tensor | None]


@contextmanager
def made_without_waiting(device: torch.device) -> Iterator[None]:
    """Inside, models make every mask on a GPU.

    transformers leaves a mask out where nothing is padded, but to find that out the host waits for the GPU
    at each chunk. There is no public switch; outside transformers is as it was.
    """
    if device.type != "cuda":
        yield
        return
    of_transformers = {name: AttentionMaskInterface()[name] for name in _ASKING}
    for name, make in of_transformers.items():
        AttentionMaskInterface.register(name, partial(_always, make))
    try:
        yield
    finally:
        for name, make in of_transformers.items():
            AttentionMaskInterface.register(name, make)


def sdpa_mask(**arguments: Any) -> Tensor | None:
    """sdpa's mask of padded texts."""
    mask: Tensor | None = AttentionMaskInterface()["sdpa"](**arguments)
    return mask


def _always(make: MakeMask, **arguments: Any) -> Tensor | None:
    never = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return make(**{**arguments, **never})
