"""Shows a run while it trains: one redrawn line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console

from inbatch.callbacks.pauses import PauseWatcher
from inbatch.callbacks.throughput import StepClock, ThroughputMeter
from inbatch.console import Display, duration, make_console, make_display, quantity, record
from inbatch.step.report import StepReport, Watched, means_over_ranks

REDRAW_S = 0.1  # between two redraws of a terminal's line
SMOOTH_STEPS = 50  # the shown loss is their mean
NOTABLE_S = 5.0  # a pause without results is worth a line from here on


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a run, and the numbers shown with it."""

    step: int  # optimizer steps done
    total_steps: int
    epoch: float  # epochs done
    num_epochs: int | None  # None where only steps end the run
    learning_rate: float
    loss: float | None = None  # None before the first reading
    samples_per_s: float | None = None
    seconds_per_step: float = 0.0

    def __str__(self) -> str:
        """As ``epoch 1.25/3  step 5/12  left 0:01:22  loss 0.1234  lr 1.20e-05  812 samples/s``."""
        epochs = f"/{self.num_epochs}" if self.num_epochs is not None else ""
        left = duration((self.total_steps - self.step) * self.seconds_per_step)
        parts = [f"epoch {self.epoch:.2f}{epochs}", f"step {self.step}/{self.total_steps}"]
        parts.append(f"left {left}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        parts.append(f"lr {self.learning_rate:.2e}")
        if self.samples_per_s is not None:
            parts.append(f"{quantity(self.samples_per_s)} samples/s")
        return "  ".join(parts)


class Progress(ProgressBar, PauseWatcher):
    """Epoch, step, loss, learning rate, samples/s and time left, in place of Lightning's bar.

    On a terminal the line moves with the steps; the loss in it, a mean over the last steps and all
    ranks, is read every `every_steps` optimizer steps. Elsewhere a line is printed every
    `every_steps` optimizer steps, but not sooner than `min_interval_s` after the last one. The
    first and the last step are always shown. Only rank zero shows anything.

    Args:
        every_steps: optimizer steps between readings of the loss, for which the host waits and
            which all ranks take part in.
        min_interval_s: seconds between plain lines, at least.
        console: where to print; None for standard output.
    """

    def __init__(
        self,
        *,
        every_steps: int = 10,
        min_interval_s: float = 2.0,
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self._every_steps = every_steps
        self._min_interval_s = min_interval_s
        self._console = console
        self._display: Display | None = None
        self._enabled = True
        self._reports: deque[StepReport] = deque(maxlen=SMOOTH_STEPS)
        self._meter = ThroughputMeter()
        self._clock = StepClock()
        self._first_step = self._step = self._shown_step = self._read_step = 0
        self._shown_at_s = self._printed_at_s = float("-inf")
        self._epoch = 0.0
        self._seconds = 0.0
        self._loss: float | None = None

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without breaking the line."""
        if self._enabled:
            self._open().note(" ".join(str(arg) for arg in args))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._first_step = self._step = trainer.global_step
        self._shown_step = self._read_step = trainer.global_step
        self._clock.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch; show the step that it ends, where that is due."""
        module = cast(Watched, pl_module)
        if module.last_step is None:
            return
        seconds = self._clock.lap()
        self._seconds += seconds
        self._meter.add(module.last_step, seconds=seconds)
        self._reports.append(module.last_step)
        if trainer.global_step == self._step:  # an optimizer step may take several batches
            return
        self._step = trainer.global_step
        self._epoch = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        on_grid = self._step % self._every_steps == 0
        at_edge = self._step in (self._first_step + 1, module.total_steps)
        if on_grid or at_edge:
            self._read_loss(trainer)
        if not self._enabled:
            return
        waited_s = time.monotonic() - self._shown_at_s
        printed_s = time.monotonic() - self._printed_at_s
        line = at_edge or (on_grid and printed_s >= self._min_interval_s)
        if line or (self._open().moves and (on_grid or waited_s >= REDRAW_S)):
            self._show(trainer, module.total_steps, line=line)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last step, whatever ended the run."""
        if self._read_step != self._step:
            self._read_loss(trainer)
        if self._enabled and self._shown_step != self._step:
            self._show(trainer, cast(Watched, pl_module).total_steps, line=True)
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back before the error is printed."""
        self._close()

    def on_pause(self, trainer: Trainer, name: str) -> None:
        """Show the name of the pause."""
        self._clock.pause()
        if self._enabled:
            self._open().wait(name)

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Print the results, or how long it took."""
        seconds = self._clock.resume()
        if self._enabled and (results or seconds >= NOTABLE_S):
            numbers = "".join(f"  {key} {value:.4f}" for key, value in results.items())
            self._open().note(
                f"{name}  step {trainer.global_step}{numbers}  took {duration(seconds)}"
            )

    def _read_loss(self, trainer: Trainer) -> None:
        """Every rank comes here at the same steps."""
        self._read_step = self._step
        loss = torch.stack([report.loss.float() for report in self._reports]).mean()
        self._loss = means_over_ranks(
            {"loss": loss.item()},
            world_size=trainer.world_size,
            device=trainer.strategy.root_device,
        )["loss"]

    def _show(self, trainer: Trainer, total_steps: int, *, line: bool) -> None:
        """Show the step; `line` is whether a log is to have it as a line."""
        position = Position(
            step=self._step,
            total_steps=total_steps,
            epoch=self._epoch,
            num_epochs=None if trainer.max_epochs in (None, -1) else trainer.max_epochs,
            learning_rate=self._reports[-1].learning_rate,
            loss=self._loss,
            samples_per_s=self._meter.metrics().get("perf/samples_per_s"),
            seconds_per_step=self._seconds / (self._step - self._first_step),
        )
        self._shown_step, self._shown_at_s = self._step, time.monotonic()
        display = self._open()
        display.show("train", str(position), share=self._step / total_steps)
        if line:
            self._printed_at_s = self._shown_at_s
            if display.moves:  # else `show` is what records
                record(f"train  {position}")

    def _open(self) -> Display:
        if self._display is None:
            self._display = make_display(self._console or make_console())
        return self._display

    def _close(self) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None
