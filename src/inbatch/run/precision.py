"""Replaces `precision=auto`: bf16 where the device computes it natively, fp32 elsewhere.

A run keeps what it began with. Each rank decides for its own machine; ranks that differ are refused when
they meet (`callbacks/rank_consistency.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inbatch.config.check import check_precision
from inbatch.config.instantiate import instantiate
from inbatch.config.schema import Precision
from inbatch.device.native_bf16 import native_bfloat16
from inbatch.errors import ConfigError
from inbatch.run.resume import Saved
from inbatch.strategies import World

_IN_WORDS = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class ChosenPrecision:
    """A value of `precision`, and why `auto` stands for it; None where it was set."""

    name: Precision
    reason: str | None = None

    def describe(self) -> str:
        """Both, for the table before step 1."""
        if self.reason is None:
            return self.name
        return f"{_IN_WORDS.get(self.name, self.name)}: {self.reason}"


def choose_precision(
    configured: Precision, world: World, *, strategy: Mapping[str, Any], saved: Saved | None
) -> ChosenPrecision:
    """The precision of a run.

    Args:
        configured: as configured.
        world: its devices.
        strategy: its node.
        saved: the checkpoint that it resumes from.

    Raises:
        ConfigError: the run began in a precision that this machine does not compute natively.
    """
    if configured != "auto":
        return ChosenPrecision(configured)
    native, reason = native_bfloat16(world.accelerator, devices=world.devices)
    begun = None if saved is None else saved.record.get("settings", {}).get("precision")
    if saved is not None and begun is not None:
        return _as_begun(begun, world.accelerator, None if native else reason, saved)
    made = instantiate(strategy).resolve(world.size)
    if native and "bf16" in made.refuses:
        native, reason = False, f"{type(made).__name__} does not compute in bfloat16"
    return ChosenPrecision("bf16" if native else "fp32", reason)


def _as_begun(
    begun: Precision, accelerator: str, obstacle: str | None, saved: Saved
) -> ChosenPrecision:
    """The precision of the run so far."""
    try:
        check_precision(begun, accelerator)
    except ConfigError as error:
        raise _changed(begun, f"{begun} {error.problem}", saved, error.fix) from None
    if begun.startswith("bf16") and obstacle is not None:
        slower = f"set precision={begun} to go on in it all the same, slower, or precision=fp32"
        raise _changed(begun, obstacle, saved, slower)
    return ChosenPrecision(begun, "as the run began")


def _changed(begun: str, why: str, saved: Saved, fix: str) -> ConfigError:
    return ConfigError("precision", f"was {begun} when {saved.path} was saved, and {why}", fix)
