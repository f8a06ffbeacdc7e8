"""Prints a table before the first step, and a summary with the paths of the results at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from inbatch.callbacks.pauses import PauseWatcher
from inbatch.callbacks.throughput import matmul_flop_per_s, peak_memory_gib, product_dtype
from inbatch.console import (
    TableRows,
    make_console,
    metrics_table,
    quantity,
    run_table,
    summary_panel,
)
from inbatch.export.card_sections import in_words
from inbatch.step.report import Watched


@dataclass(frozen=True, slots=True)
class _Totals:
    num_rows: int = 0
    training_s: float = 0.0
    evaluation_s: float = 0.0


class Summary(Callback, PauseWatcher):
    """Prints the run's table when training starts; `show` prints the summary, of all starts of the run.

    Args:
        rows: {section: {name: value}}; steps, ranks and parameters are put in front of the section "run".
        step_flop: operations of a rank in one step, to tell what it takes at least; None leaves that out.
        console: where to print; None for standard output.
    """

    def __init__(
        self, rows: TableRows, *, step_flop: float | None = None, console: Console | None = None
    ) -> None:
        self._rows = rows
        self._step_flop = step_flop
        self._console = console or make_console()
        self._parameters = ""
        self._num_rows = 0
        self._num_steps = 0  # of this start
        self._start_s: float | None = None
        self._paused_at_s = 0.0
        self._earlier = _Totals()  # of the starts before this one
        self.training_s = 0.0  # from the first step to the last, without evaluation
        self.evaluation_s = 0.0
        self._compiled_graphs: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Count parameters while they are whole: a strategy may shard them later."""
        parameters = list(pl_module.parameters())
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        self._parameters = f"{trainable:,} of {sum(p.numel() for p in parameters):,} train"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table."""
        self._start_s = time.monotonic()
        start = f", from step {trainer.global_step}" if trainer.global_step else ""
        run = {
            "steps": f"{cast(Watched, pl_module).total_steps:,}{start}",
            "batches per epoch": str(trainer.num_training_batches),
            "ranks": str(trainer.world_size),
            "device": str(trainer.strategy.root_device),
            "parameters": self._parameters,
            **self._rows.get("run", {}),
        }
        if self._step_flop is not None:
            run["estimated step"] = self._estimate(trainer, self._step_flop)
        if trainer.is_global_zero:
            run_table({**self._rows, "run": run}, console=self._console)

    def _estimate(self, trainer: Trainer, flop: float) -> str:
        """Operations of a step, and the least time for them: all at the rate of matrix products."""
        dtype = product_dtype(trainer.precision)
        rate = matmul_flop_per_s(trainer.strategy.root_device, dtype)
        return f"{flop / 1e12:.3g} TFLOP per rank, at least {flop / rate:.2g} s"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count rows."""
        self._num_steps += 1
        report = cast(Watched, pl_module).last_step
        if report is not None:
            self._num_rows += report.num_rows
            self._compiled_graphs = report.compiled_graphs

    def on_pause(self, trainer: Trainer, name: str) -> None:
        """Note the time."""
        self._paused_at_s = time.monotonic()

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Note how long an evaluation took."""
        if name == "evaluate":
            self.evaluation_s += time.monotonic() - self._paused_at_s

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time that training has taken."""
        now = self._totals()
        self.training_s, self._start_s = now.training_s, None

    def state_dict(self) -> dict[str, Any]:
        """The totals up to a checkpoint."""
        return asdict(self._totals())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from the totals of a checkpoint."""
        self._earlier = _Totals(**state_dict)
        self._num_rows, self.evaluation_s = self._earlier.num_rows, self._earlier.evaluation_s
        self.training_s = self._earlier.training_s

    @property
    def this_start_s(self) -> float:
        """Seconds of training and evaluation in this start."""
        earlier = self._earlier.training_s + self._earlier.evaluation_s
        return self.training_s + self.evaluation_s - earlier

    def _totals(self) -> _Totals:
        """Of all starts, up to now."""
        training_s = self.training_s
        if self._start_s is not None:
            evaluated_s = self.evaluation_s - self._earlier.evaluation_s
            training_s += time.monotonic() - self._start_s - evaluated_s
        return _Totals(self._num_rows, training_s, self.evaluation_s)

    def _facts(self, trainer: Trainer) -> dict[str, str]:
        evaluated = f", {in_words(self.evaluation_s)} of evaluation" if self.evaluation_s else ""
        rate = (
            f", {quantity(self._num_rows / self.training_s)} a second in all"
            if self.training_s
            else ""
        )
        facts = {
            "steps": f"{trainer.global_step:,}",
            "rows": f"{self._num_rows:,}{rate}",
            "time": f"{in_words(self.training_s)} of training{evaluated}",
            "peak memory": f"{peak_memory_gib(trainer.strategy.root_device):.2f} GiB on rank 0",
        }
        if not self._num_steps:
            facts["steps"] += (
                ", all trained before: nothing was left to do (a larger trainer.max_epochs or "
                "trainer.max_steps goes on)"
            )
        if self._compiled_graphs is not None:
            facts["compiled"] = f"{self._compiled_graphs} graphs"
        return facts

    def show(
        self,
        trainer: Trainer,
        *,
        before: Mapping[str, float],
        after: Mapping[str, float],
        facts: Mapping[str, str],
        paths: Mapping[str, str],
    ) -> None:
        """Print the summary, once all results are written.

        Args:
            trainer: of the run; only its first rank prints.
            before, after: metrics of the untrained model and of the exported one, {name: value}.
            facts: printed after those counted here: steps, rows, time, memory.
            paths: where the results are.
        """
        if trainer.is_global_zero:
            metrics_table(before, after, console=self._console)
            summary_panel({**self._facts(trainer), **facts}, paths, console=self._console)
