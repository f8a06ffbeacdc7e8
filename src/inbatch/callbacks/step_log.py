"""Writes rows of training metrics to every logger of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from inbatch.callbacks.metrics_file import MetricsFile
from inbatch.callbacks.pauses import PauseWatcher
from inbatch.callbacks.throughput import (
    StepClock,
    ThroughputMeter,
    matmul_flop_per_s,
    peak_memory_gib,
    product_dtype,
)
from inbatch.step.report import OpenRow, Watched, means_over_ranks

_STATE = "step_log"  # key of a checkpoint
_OF_ONE_RANK = ("perf/tokens_per_s", "perf/padding_share", "perf/mfu")  # as the meter counts them


class StepLog(Callback, PauseWatcher):
    """Writes ``train/*`` and ``perf/*`` after step 1, every N optimizer steps, and at the end.

    ``train/loss``, ``train/gradient_norm`` and the loss's metrics are means over the steps since
    the last row (`OpenRow`), those before a stop included. The row's step is the number of optimizer
    steps done. The host waits for the device once per row. ``perf/mfu`` is a share of the device's
    measured rate of large matrix products in the precision of the run, which is somewhat below what
    its maker says.

    Args:
        every_steps: optimizer steps between rows.
        more: further values of a row, by name. Called on every rank.
    """

    def __init__(
        self,
        *,
        every_steps: int = 10,
        more: Callable[[Trainer], Mapping[str, float]] = lambda trainer: {},
    ) -> None:
        self.every_steps = every_steps
        self._more = more
        self.loss: float | None = None  # of the last row; None before the first one
        self.row_step = 0  # of the last row
        self._num_parameters = 0
        self._meter: ThroughputMeter
        self._clock = StepClock()
        self._row = OpenRow()
        self._start_step = self._step = 0
        self._epoch = 0.0
        self._data_s = 0.0
        self._learning_rate = 0.0
        self._num_skipped = 0
        self._compiled_graphs: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Count parameters while they are whole: a strategy may shard them later."""
        self._num_parameters = num_computing_parameters(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count; drop rows of the log that a resumed run will write again."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.rewind(trainer.global_step or -1, train_step=self.row_step or -1)
        self._meter = ThroughputMeter(
            num_parameters=self._num_parameters,
            peak_flop_per_s=matmul_flop_per_s(
                trainer.strategy.root_device, product_dtype(trainer.precision)
            ),
        )
        self._start_step = self._step = trainer.global_step
        self._clock.start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how long the step has waited for its batch."""
        self._data_s = self._clock.elapsed()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step; write a row where one is due."""
        module = cast(Watched, pl_module)
        report = module.last_step
        if report is None:
            return
        stepped = trainer.global_step != self._step  # a step may accumulate several batches
        waited = {**report.phases, "data": self._data_s}
        self._meter.add(replace(report, phases=waited), seconds=self._clock.lap())
        self._row.add(report, ends_step=stepped)
        self._epoch = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        self._learning_rate = report.learning_rate
        self._num_skipped = report.num_skipped
        self._compiled_graphs = report.compiled_graphs
        self._step = trainer.global_step
        on_grid = self._step % self.every_steps == 0
        if stepped and (on_grid or self._step in (1, module.total_steps)):
            self._write(trainer)

    def on_pause(self, trainer: Trainer, name: str) -> None:
        """A pause is no training time."""
        self._clock.pause()

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Count again."""
        self._clock.resume()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is left of a run that has stopped early; one that resumes replaces that row."""
        if self._step not in (self._start_step, self.row_step):
            self._write(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the open row. Collective."""
        self._read(trainer)
        checkpoint[_STATE] = {
            "row": self._row.state(),
            "row_step": self.row_step,
            "loss": self.loss,
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Continue the open row."""
        state = checkpoint.get(_STATE)
        if state is None:  # of an earlier release
            return
        self._row = OpenRow.of_state(state["row"])
        self.row_step, self.loss = state["row_step"], state["loss"]

    def _read(self, trainer: Trainer) -> dict[str, float]:
        device = trainer.strategy.root_device
        return self._row.read(world_size=trainer.world_size, device=device)

    def _write(self, trainer: Trainer) -> None:
        scalars = {f"train/{name}": mean for name, mean in self._read(trainer).items()}
        rates = self._meter.metrics()
        own = means_over_ranks(
            {name: rates.get(name, 0.0) for name in _OF_ONE_RANK},  # a rank may have had no rows
            world_size=trainer.world_size,
            device=trainer.strategy.root_device,
        )
        own["perf/tokens_per_s"] *= trainer.world_size
        row = {
            "epoch": self._epoch,
            **scalars,
            "train/lr": self._learning_rate,
            **{name: own.get(name, rate) for name, rate in rates.items()},
            "perf/peak_memory_gib": peak_memory_gib(trainer.strategy.root_device),
            **self._more(trainer),
        }
        if self._num_skipped:
            row["train/skipped_steps"] = self._num_skipped
        if self._compiled_graphs is not None:
            row["perf/compiled_graphs"] = self._compiled_graphs
        self._row, self.row_step, self.loss = OpenRow(), self._step, scalars["train/loss"]
        for logger in trainer.loggers:
            logger.log_metrics(row, step=self._step)


def num_computing_parameters(module: nn.Module) -> int:
    """Number of parameters that multiply activations: all but embedding tables."""
    tables = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag)
        for parameter in part.parameters()
    }
    return sum(p.numel() for p in module.parameters() if id(p) not in tables)
