"""The learning rate over a run, as a factor of each group's own learning rate.

Pure functions of progress first, then one frozen dataclass per schedule. Each equals the schedule
of the same name in transformers at every step of a run; the absolute end learning rate
of transformers (``lr_end``, ``min_lr``) is here a share of the learning rate, ``min_lr_ratio``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from inbatch.errors import ConfigError

Shape = Literal["linear", "cosine", "1-sqrt"]


class Schedule(Protocol):
    """A frozen dataclass of a schedule's settings."""

    def factor(self, step: int, total_steps: int) -> float:
        """The factor of the learning rate in the update that follows `step` updates."""


def to_lambda_lr(optimizer: Optimizer, schedule: Schedule, total_steps: int) -> LambdaLR:
    """Drive an optimizer's learning rates; call ``step`` after each optimizer step."""
    if total_steps < 1:
        raise ConfigError(
            "total_steps", "is too small", "train for one step at least", value=total_steps
        )
    return LambdaLR(optimizer, lambda step: schedule.factor(step, total_steps))


def decay(shape: Shape, progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1; a warmup is ``decay(shape, 1 - progress)``."""
    if shape == "linear":
        return 1.0 - progress
    if shape == "cosine":
        return cosine(progress, num_cycles=0.5)
    return 1.0 - math.sqrt(progress)


def cosine(progress: float, *, num_cycles: float) -> float:
    """``num_cycles`` waves of (1 + cos) / 2, from 1 at progress 0."""
    return 0.5 * (1.0 + math.cos(2.0 * math.pi * num_cycles * progress))


def above(minimum: float, factor: float) -> float:
    """Map [0, 1] to [minimum, 1]."""
    return minimum + (1.0 - minimum) * factor


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Always 1."""

    def factor(self, step: int, total_steps: int) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class WarmupSchedule(ABC):
    """A linear warmup from 0 to 1, then the rule of a subclass.

    Args:
        warmup_steps: updates until the full learning rate.
        warmup_ratio: the same as a share of all updates, rounded up; set one of the two.
    """

    warmup_steps: int = 0
    warmup_ratio: float = 0.0

    def __post_init__(self) -> None:
        _check_steps_or_ratio("warmup", self.warmup_steps, self.warmup_ratio)

    def factor(self, step: int, total_steps: int) -> float:
        """The factor of the update after `step` updates."""
        warmup = steps_of(self.warmup_steps, self.warmup_ratio, total_steps)
        return step / warmup if step < warmup else self.after_warmup(step, warmup, total_steps)

    @abstractmethod
    def after_warmup(self, step: int, warmup: int, total_steps: int) -> float:
        """The factor from step `warmup` on."""


@dataclass(frozen=True, kw_only=True)
class ConstantWithWarmup(WarmupSchedule):
    """1 after the warmup."""

    def after_warmup(self, step: int, warmup: int, total_steps: int) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Linear(WarmupSchedule):
    """A straight line to 0 at the end."""

    def after_warmup(self, step: int, warmup: int, total_steps: int) -> float:
        """1 - progress."""
        return decay("linear", progress(step, warmup, total_steps))


@dataclass(frozen=True, kw_only=True)
class Cosine(WarmupSchedule):
    """``num_cycles`` cosine waves; 0.5 falls once from 1 to 0."""

    num_cycles: float = 0.5

    def after_warmup(self, step: int, warmup: int, total_steps: int) -> float:
        """(1 + cos(2 pi num_cycles progress)) / 2."""
        return cosine(progress(step, warmup, total_steps), num_cycles=self.num_cycles)


@dataclass(frozen=True, kw_only=True)
class CosineWithMinLr(WarmupSchedule):
    """`Cosine` that ends at ``min_lr_ratio`` instead of 0."""

    min_lr_ratio: float
    num_cycles: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_min_lr_ratio(self.min_lr_ratio)

    def after_warmup(self, step: int, warmup: int, total_steps: int) -> float:
        """The cosine, mapped to [min_lr_ratio, 1]."""
        wave = cosine(progress(step, warmup, total_steps), num_cycles=self.num_cycles)
        return above(self.min_lr_ratio, wave)


@dataclass(frozen=True, kw_only=True)
class CosineWithRestarts(WarmupSchedule):
    """``num_cycles`` falls from 1 to 0, each with a restart at 1."""

    num_cycles: int = 1

    def after_warmup(self, step: int, warmup: int, total_steps: int) -> float:
        """(1 + cos(pi (num_cycles progress mod 1))) / 2, and 0 at the end."""
        done = progress(step, warmup, total_steps)
        return 0.0 if done >= 1.0 else cosine((self.num_cycles * done) % 1.0, num_cycles=0.5)


@dataclass(frozen=True, kw_only=True)
class Polynomial(WarmupSchedule):
    """(1 - progress) ** power down to ``min_lr_ratio`` (transformers: lr_end / learning rate)."""

    power: float = 1.0
    min_lr_ratio: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_min_lr_ratio(self.min_lr_ratio)

    def after_warmup(self, step: int, warmup: int, total_steps: int) -> float:
        """The power of what remains, mapped to [min_lr_ratio, 1]."""
        remaining = 1.0 - progress(step, warmup, total_steps)
        return above(self.min_lr_ratio, remaining**self.power)


@dataclass(frozen=True, kw_only=True)
class InverseSqrt(WarmupSchedule):
    """sqrt(timescale / (timescale + steps since the warmup)), whatever the length of the run.

    Args:
        timescale: in steps; None takes the warmup's length, or 10,000 without a warmup.
    """

    timescale: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timescale is not None and self.timescale < 1:
            raise ConfigError(
                "timescale", "is too small", "set at least 1 step, or null", value=self.timescale
            )

    def after_warmup(self, step: int, warmup: int, total_steps: int) -> float:
        """sqrt(timescale / (timescale + step - warmup))."""
        timescale = self.timescale or warmup or 10_000
        return math.sqrt(timescale / (timescale + step - warmup))


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay:
    """Warmup, then 1, then a decay over the last steps (https://arxiv.org/abs/2404.06395).

    Args:
        warmup_steps, warmup_ratio: length of the warmup, in updates or as a share; set at most one.
        decay_steps, decay_ratio: length of the decay, likewise; set one of the two.
        warmup_type, decay_type: shape of the two slopes.
        min_lr_ratio: factor at the start of the warmup and at the end of the decay.
    """

    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    decay_steps: int = 0
    decay_ratio: float = 0.0
    warmup_type: Shape = "linear"
    decay_type: Shape = "cosine"
    min_lr_ratio: float = 0.0

    def __post_init__(self) -> None:
        _check_steps_or_ratio("warmup", self.warmup_steps, self.warmup_ratio)
        _check_steps_or_ratio("decay", self.decay_steps, self.decay_ratio)
        _check_min_lr_ratio(self.min_lr_ratio)
        if not self.decay_steps and not self.decay_ratio:
            raise ConfigError(
                "decay_ratio",
                "leaves no decay",
                "set it or decay_steps, or choose constant",
                value=0.0,
            )
        for field in ("warmup_type", "decay_type"):
            if (value := getattr(self, field)) not in get_args(Shape):
                shapes = ", ".join(get_args(Shape))
                raise ConfigError(field, f"is not one of {shapes}", "set one of them", value=value)

    def factor(self, step: int, total_steps: int) -> float:
        """The factor of the update after `step` updates; a ConfigError where the phases overlap."""
        warmup = steps_of(self.warmup_steps, self.warmup_ratio, total_steps)
        falling = steps_of(self.decay_steps, self.decay_ratio, total_steps)
        if warmup + falling > total_steps:
            raise ConfigError(
                "schedule",
                f"has a warmup of {warmup} and a decay of {falling} steps, which exceed the run of "
                f"{total_steps} steps",
                "shorten one of them or train longer",
            )
        if step < warmup:
            return above(self.min_lr_ratio, decay(self.warmup_type, 1.0 - step / warmup))
        done = max(0.0, progress(step, total_steps - falling, total_steps))
        return above(self.min_lr_ratio, decay(self.decay_type, done))


def steps_of(steps: int, ratio: float, total_steps: int) -> int:
    """The length of a phase, given in steps or as a share of all steps (rounded up)."""
    return steps or math.ceil(total_steps * ratio)


def progress(step: int, start: int, total_steps: int) -> float:
    """0 at step `start`, 1 at the end of the run and after it."""
    return min(1.0, (step - start) / max(1, total_steps - start))


def _check_steps_or_ratio(phase: str, steps: int, ratio: float) -> None:
    if steps < 0 or steps != int(steps):
        raise ConfigError(
            f"{phase}_steps",
            "is not a whole number of at least 0",
            f"set one, or use {phase}_ratio",
            value=steps,
        )
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(
            f"{phase}_ratio", "is out of range", "set a share of the run from 0 to 1", value=ratio
        )
    if steps and ratio:
        raise ConfigError(
            f"{phase}_steps",
            f"does not go with {phase}_ratio={ratio}",
            "set one of them to 0",
            value=steps,
        )


def _check_min_lr_ratio(ratio: float) -> None:
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(
            "min_lr_ratio",
            "is out of range",
            "set a share of the learning rate from 0 to 1",
            value=ratio,
        )
