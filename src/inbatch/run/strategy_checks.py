"""Checks that a strategy and a precision go with each other and with what else is asked of a run."""

from __future__ import annotations

from importlib.util import find_spec

from inbatch.errors import ConfigError
from inbatch.run.parts import Parts
from inbatch.strategies import Strategy


def check_average(parts: Parts, precision: str) -> None:
    """Check that weights have the digits that an average of many steps needs.

    Raises:
        ConfigError: they are held in 16 bits.
    """
    halves = {p.dtype for p in parts.encoder.parameters() if p.element_size() < 4}
    own = precision == "bf16-true" or (precision == "fp16" and parts.strategy.saves_shards)
    if own or halves:
        key, value = ("precision", precision) if own else ("encoder.dtype", str(halves.pop())[6:])
        raise ConfigError(
            key,
            "holds weights in 16 bits, whose average over steps would lose what ema.decay adds to it",
            f"set {'precision=bf16' if own else 'encoder.dtype=float32'}, or ema.decay=null",
            value=value,
        )


def check_frozen_weights(parts: Parts, precision: str) -> None:
    """Check that frozen weights in 16 bits stay in them.

    Raises:
        ConfigError: DeepSpeed would make them float32, or adapters 16 bits.
    """
    halves = {p.dtype for p in parts.encoder.parameters() if p.element_size() < 4}
    engine = parts.strategy.package == "deepspeed"
    if parts.encoder.adapter is not None and halves and engine and precision != "bf16":
        raise ConfigError(
            "encoder.dtype",
            f"does not stay what it is under DeepSpeed with precision={precision}",
            "set precision=bf16, or encoder.dtype=float32",
            value=str(halves.pop())[6:],
        )


def check_strategy(strategy: Strategy, precision: str, on_nonfinite: str) -> None:
    """Check that a strategy is installed, can compute in a precision, and leave out steps if it is to.

    Raises:
        ConfigError: it is not, or cannot.
    """
    if strategy.package is not None and find_spec(strategy.package) is None:
        raise ConfigError(
            f"strategy {type(strategy).__name__}",
            f"needs the package {strategy.package}",
            f"run pip install 'inbatch[{strategy.package}]'",
        )
    if precision in strategy.refuses:
        raise ConfigError(
            "precision",
            f"is not computed under {type(strategy).__name__}",
            "set precision=fp32 or precision=bf16, or strategy=ddp",
            value=precision,
        )
    if on_nonfinite == "skip" and strategy.clips_gradients:
        raise ConfigError(
            "on_nonfinite",
            f"is not possible under {type(strategy).__name__}, which steps by itself",
            "set on_nonfinite=stop, or strategy=ddp or fsdp",
            value=on_nonfinite,
        )
