"""Private names of Lightning, of its W&B logger and of torchmetrics, which it brings along."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from inbatch.compat.part_of_package import forwarded, part_of

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.loggers import WandbLogger


def load_part_of_torchmetrics() -> None:
    """Load the two classes of torchmetrics that Lightning mentions; whoever asks for more gets all of it.

    The package loads all its metrics, scipy for those of sounds and matplotlib for the types of its plots: a
    second of each start, for nothing that is used here. Its modules take its logger, which is private, from
    the package that they are a part of.
    """
    part = part_of("torchmetrics", {"_logger": logging.getLogger("torchmetrics")})
    if part is None:
        return
    plots, function = "torchmetrics.utilities.plot", "plot_single_or_multi_val"
    names = {
        "_AX_TYPE": object,  # both as without matplotlib
        "_PLOT_OUT_TYPE": tuple[object, object],
        function: forwarded(plots, function),
    }
    part_of(plots, names, file=Path(part.__path__[0]) / "utilities" / "plot.py")
    # First, as in the package: its modules need one another.
    import_module("torchmetrics.utilities")
    for module, name in (("metric", "Metric"), ("collections", "MetricCollection")):
        setattr(part, name, getattr(import_module(f"torchmetrics.{module}"), name))


def load_flop_counter_when_needed() -> None:
    """Have torch's counter of operations, and with it triton, loaded when one is made.

    Lightning's summary of a model names it.
    """
    import torch

    counter, name = "torch.utils.flop_counter", "FlopCounterMode"
    file = Path(torch.__path__[0]) / "utils" / "flop_counter.py"
    part_of(counter, {name: forwarded(counter, name)}, file=file)


def leave_signals_alone(trainer: Trainer) -> None:
    """Keep a trainer from handling SIGTERM and from asking all ranks about it before each step.

    Its handler runs a collective inside the signal handler, which deadlocks where ranks get the signal at
    different moments, and the question makes the host wait for the device. There is no public switch.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def observe_ranks(observe: Callable[[list[subprocess.Popen[bytes]]], None]) -> None:
    """Hand the processes of the ranks that Lightning starts in this process to `observe`.

    It takes the place of Lightning's observer, which looks every five seconds and, where a rank has failed,
    kills all others without a word. There is no public switch.
    """
    from lightning.fabric.strategies.launchers import subprocess_script as of_fabric
    from lightning.pytorch.strategies.launchers import subprocess_script as of_trainer

    of_fabric._launch_process_observer = observe  # type: ignore[assignment]
    of_trainer._launch_process_observer = observe  # type: ignore[assignment]


def sends_model(logger: WandbLogger) -> bool:
    """Return whether a W&B logger was made with ``log_model``, which it keeps in a private attribute."""
    return bool(logger._log_model)


def is_offline(logger: WandbLogger) -> bool:
    """Return whether a W&B logger was made with ``offline``, which it keeps in a private attribute."""
    return bool(logger._offline)


def drop_anonymous(logger: WandbLogger) -> None:
    """Take ``anonymous`` out of what Lightning hands to `wandb.init`, which warns that it has no effect."""
    logger._wandb_init.pop("anonymous", None)
