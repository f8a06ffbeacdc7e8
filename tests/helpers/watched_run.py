"""A tiny training run that reports its steps, for the callbacks that watch."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader

from inbatch.step.report import StepReport

ROWS, TOKENS, COMPUTED = 8, 60, 80  # of each batch


def report(loss: float, *, rows: int = ROWS, **metrics: float) -> StepReport:
    """A report of one batch."""
    return StepReport(
        loss=torch.tensor(loss),
        metrics={name: torch.tensor(value) for name, value in metrics.items()},
        num_rows=rows,
        num_tokens=TOKENS,
        num_texts=2 * rows,
        num_padded_tokens=COMPUTED,
        learning_rate=0.5,
        gradient_norm=torch.tensor(2.0 * loss),
        phases={"embed": 0.5, "loss": 0.1},
        source="rows",
    )


class WatchedModule(LightningModule):
    """Batch t, counted from 1, has the loss t; a step is taken after every `accumulate` batches."""

    def __init__(
        self,
        *,
        total_steps: int,
        accumulate: int = 1,
        fail_at: int | None = None,
        compiled_graphs: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = nn.Parameter(torch.ones(2))
        self.table = nn.Embedding(10, 4)
        self.last_step: StepReport | None = None
        self.total_steps = total_steps
        self.accumulate = accumulate
        self.fail_at = fail_at
        self.compiled_graphs = compiled_graphs
        self.num_batches = 0

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """One batch."""
        self.num_batches += 1
        if self.num_batches == self.fail_at:
            raise RuntimeError("broken step")
        self.manual_backward(self.weight.sum() + self.table.weight.sum())
        if self.num_batches % self.accumulate == 0:
            optimizer: Any = self.optimizers()
            optimizer.step()
            optimizer.zero_grad()
        found = report(float(self.num_batches), accuracy=0.25 * self.num_batches)
        self.last_step = replace(found, compiled_graphs=self.compiled_graphs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Rows(Logger):
    """Keeps what is logged."""

    name = "rows"
    version = ""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep a row."""
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


def fit(
    module: WatchedModule,
    *callbacks: Callback,
    num_batches: int = 6,
    epochs: int = 2,
    logger: Logger | bool = False,
) -> Trainer:
    """Train on the CPU."""
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=logger,
        log_every_n_steps=1,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(hasattr(callback, "get_metrics") for callback in callbacks),
    )
    trainer.fit(module, DataLoader(list(torch.zeros(num_batches, 1)), batch_size=1))
    return trainer


def log_console() -> tuple[Console, StringIO]:
    """A console that is no terminal, and what was printed on it."""
    stream = StringIO()
    return Console(file=stream, highlight=False, force_terminal=False), stream


def terminal() -> tuple[Console, StringIO]:
    """A console that is a terminal of 140 columns, and what was printed on it."""
    stream = StringIO()
    return Console(file=stream, highlight=False, force_terminal=True, width=140), stream
