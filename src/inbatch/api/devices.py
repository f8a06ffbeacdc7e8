"""The processes of a call from Python."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from inbatch.config.embed_schema import RanksConfig
from inbatch.config.schema import TrainerConfig
from inbatch.errors import ConfigError
from inbatch.strategies.topology import find_launcher

C = TypeVar("C", TrainerConfig, RanksConfig)


def one_device(trainer: C, *, command: str) -> C:
    """One device, unless torchrun or srun has started this process as one of several.

    Args:
        trainer: the settings of the call.
        command: of `inbatch`, which can start several.

    Raises:
        ConfigError: several are set.
    """
    if find_launcher() is not None:
        return trainer
    if trainer.num_nodes > 1 or trainer.devices not in ("auto", 1, "1"):
        key = "trainer.devices" if trainer.num_nodes == 1 else "trainer.num_nodes"
        value = trainer.devices if trainer.num_nodes == 1 else trainer.num_nodes
        raise ConfigError(
            key,
            "needs several processes, which a call from Python does not start",
            f"run `inbatch {command} ... {key}={value}`, or start this program with torchrun",
            value=value,
        )
    return replace(trainer, devices=1)
