"""Shows a run while it trains: one redrawn line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console

from inbatch.callbacks.pauses import PauseWatcher
from inbatch.callbacks.step_log import StepLog
from inbatch.callbacks.throughput import StepClock, ThroughputMeter
from inbatch.console import Display, duration, make_console, make_display, quantity, record
from inbatch.step.report import Watched

REDRAW_S = 0.1  # between two redraws of a terminal's line
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

    def forms(self) -> list[str]:
        """The line from its full form to the shortest, for terminals that are narrower.

        In full as ``epoch 1.25/3  step 5/12  left 0:01:22  loss 0.1234  lr 1.20e-05  812 samples/s``. A
        shorter one leaves spaces and digits out, then what can be done without: the learning rate, the
        epoch, the time. The unit of the speed stays.
        """
        epochs = f"/{self.num_epochs}" if self.num_epochs is not None else ""
        left = duration((self.total_steps - self.step) * self.seconds_per_step)
        step = f"step {self.step}/{self.total_steps}"
        loss = [f"loss {self.loss:.4f}"] if self.loss is not None else []
        speed = []
        if self.samples_per_s is not None:
            speed = [f"{quantity(self.samples_per_s)} samples/s"]
        epoch = f"epoch {self.epoch:.2f}"
        full = [f"{epoch}{epochs}", step, f"left {left}", *loss, f"lr {self.learning_rate:.2e}"]
        short = [epoch, step, f"left {left}", *loss, f"lr {self.learning_rate:.1e}"]
        forms = ["  ".join([*full, *speed]), " ".join([*full, *speed])]
        for head in (short, short[:-1], short[1:-1], [step, *loss], loss):
            forms.append(" ".join([*head, *speed]))
        return forms

    def __str__(self) -> str:
        """The full form."""
        return self.forms()[0]


class Progress(ProgressBar, PauseWatcher):
    """Epoch, step, loss, learning rate, samples/s and time left, in place of Lightning's bar.

    The loss is that of the last row of the log, so that all who show one show the same. On a terminal
    the line moves with the steps. Elsewhere a line is printed with each row of the log, but not sooner
    than `min_interval_s` after the last one. The first and the last step are always shown. Only rank
    zero shows anything.

    Args:
        log: writes the rows, and acts before this callback.
        min_interval_s: seconds between plain lines, at least.
        console: where to print; None for standard output.
    """

    def __init__(
        self,
        log: StepLog,
        *,
        min_interval_s: float = 2.0,
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self._log = log
        self._min_interval_s = min_interval_s
        self._console = console
        self._display: Display | None = None
        self._enabled = True
        self._meter = ThroughputMeter()
        self._clock = StepClock()
        self._first_step = self._step = self._shown_step = 0
        self._shown_at_s = self._printed_at_s = float("-inf")
        self._epoch = 0.0
        self._seconds = 0.0
        self._learning_rate = 0.0

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
        self._shown_step = trainer.global_step
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
        self._learning_rate = module.last_step.learning_rate
        if trainer.global_step == self._step:  # an optimizer step may take several batches
            return
        self._step = trainer.global_step
        self._epoch = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        if not self._enabled:
            return
        on_grid = self._step == self._log.row_step
        at_edge = self._step in (self._first_step + 1, module.total_steps)
        waited_s = time.monotonic() - self._shown_at_s
        printed_s = time.monotonic() - self._printed_at_s
        line = at_edge or (on_grid and printed_s >= self._min_interval_s)
        if line or (self._open().moves and (on_grid or waited_s >= REDRAW_S)):
            self._show(trainer, module.total_steps, line=line)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last step, whatever ended the run."""
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

    def _show(self, trainer: Trainer, total_steps: int, *, line: bool) -> None:
        """Show the step; `line` is whether a log is to have it as a line."""
        position = Position(
            step=self._step,
            total_steps=total_steps,
            epoch=self._epoch,
            num_epochs=None if trainer.max_epochs in (None, -1) else trainer.max_epochs,
            learning_rate=self._learning_rate,
            loss=self._log.loss,
            samples_per_s=self._meter.metrics().get("perf/samples_per_s"),
            seconds_per_step=self._seconds / (self._step - self._first_step),
        )
        self._shown_step, self._shown_at_s = self._step, time.monotonic()
        display = self._open()
        display.show("train", position.forms(), share=self._step / total_steps)
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
