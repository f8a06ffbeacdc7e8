"""Where an evaluator searches."""

from __future__ import annotations

import torch

from inbatch.data.sources.columns import suggest
from inbatch.device.capability import default_accelerator
from inbatch.errors import ConfigError
from inbatch.evaluation.base import Encode, EncodesOn

DEVICES = ("auto", "cpu", "cuda")


def search_device(choice: str, encode: Encode) -> torch.device:
    """The device to search on; "auto" is that of `encode`, or else the GPU if there is one.

    It is found at each call, since a rank gets its GPU after its evaluators.
    """
    if choice != "auto":
        return torch.device(choice)
    if isinstance(encode, EncodesOn):
        return encode.device
    return torch.device(default_accelerator())


def check_device(device: str, *, field: str) -> str:
    """Return `device`, one of DEVICES.

    Raises:
        ConfigError: it is not, or there is no GPU.
    """
    if device not in DEVICES:
        raise ConfigError(f"{field}.device", "is not known", suggest(device, DEVICES), value=device)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"{field}.device", "is set, but torch finds no GPU", "set auto or cpu", value=device
        )
    return device
