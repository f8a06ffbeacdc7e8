"""A temperature that is learned beside the encoder.

What is trained is ``log_scale = log(1 / temperature)``, as in CLIP (Radford et al. 2021, arXiv:2103.00020).
As there it is kept from rising above log 100, which they found necessary to prevent training instability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from inbatch.errors import ConfigError
from inbatch.losses.base import LossInput, LossParameter
from inbatch.losses.checks import check_number

Temperature = float | Literal["learned"]

LOG_SCALE = "log_scale"
LEAST = 0.01
INITIAL = 0.05


def check_temperature(temperature: Temperature, initial: float | None) -> None:
    """Raise ConfigError unless both are in range, and the second one has a meaning."""
    if temperature != "learned":
        if isinstance(temperature, str):
            raise ConfigError(
                "temperature", "is not a number", 'set one, or "learned"', value=temperature
            )
        check_number("temperature", temperature, above=0)
        if initial is not None:
            raise ConfigError(
                "initial_temperature",
                f"does nothing under temperature={temperature}",
                "set temperature=learned, or leave it out",
                value=initial,
            )
    elif initial is not None:
        check_number("initial_temperature", initial, above=0)
        if initial < LEAST:
            raise ConfigError(
                "initial_temperature",
                f"is below {LEAST}, the least that a learned temperature may be",
                f"set {LEAST} or more",
                value=initial,
            )


def temperature_parameters(
    temperature: Temperature, initial: float | None
) -> dict[str, LossParameter]:
    """What a loss with this temperature trains."""
    if temperature != "learned":
        return {}

    def fill(log_scale_1: Tensor, draws: torch.Generator) -> None:
        log_scale_1.fill_(-math.log(INITIAL if initial is None else initial))

    return {LOG_SCALE: LossParameter((1,), fill, most=-math.log(LEAST))}


def temperature_of(temperature: Temperature, inputs: LossInput) -> float | Tensor:
    """The divisor of the scores: a number, or a scalar that the parameter has a gradient by."""
    if temperature != "learned":
        return temperature
    return (-inputs.parameters[LOG_SCALE]).exp().reshape(())


def learned_temperatures(parameters: Mapping[str, Tensor]) -> dict[str, float]:
    """The learned ones among the parameters of a loss, ``learned_temperature``, with the name of its part in
    front where the loss has parts. Waits for the device."""
    parts = {name: name.rpartition("/") for name in parameters}
    return {
        f"{before}{slash}learned_temperature": math.exp(-float(parameters[name]))
        for name, (before, slash, last) in parts.items()
        if last == LOG_SCALE
    }


def temperature_metrics(divisor: float | Tensor) -> dict[str, Tensor]:
    """What is logged of a learned temperature."""
    return {"temperature": divisor.detach()} if isinstance(divisor, Tensor) else {}
