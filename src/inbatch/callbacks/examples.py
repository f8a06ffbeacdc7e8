"""Examples of each evaluation as tables: a csv file of the run, and W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import WandbLogger

from inbatch.callbacks.pauses import PauseWatcher
from inbatch.evaluation import Evaluator, Examples, ShowsExamples
from inbatch.files import write_csv


class ExampleTables(Callback, PauseWatcher):
    """Writes what evaluators show, after each evaluation: the file is that of the last one.

    Args:
        evaluators: those that show no examples are passed over.
        folder: for ``<evaluator>.csv``; W&B gets ``examples/<evaluator>``.
    """

    def __init__(self, evaluators: Sequence[Evaluator], *, folder: Path) -> None:
        self._evaluators = [e for e in evaluators if isinstance(e, ShowsExamples)]
        self._folder = folder

    def on_pause(self, trainer: Trainer, name: str) -> None:
        """Nothing."""

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Write the tables on rank 0."""
        if name != "evaluate" or not trainer.is_global_zero:
            return
        for evaluator in self._evaluators:
            found = evaluator.examples()
            if found is not None:
                self._write(trainer, evaluator.name or "evaluation", found)

    def _write(self, trainer: Trainer, name: str, found: Examples) -> None:
        write_csv(self._folder / f"{name}.csv", found.columns, found.rows)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                rows = [list(row) for row in found.rows]
                columns = list(found.columns)
                logger.log_table(f"examples/{name}", columns, rows, step=trainer.global_step)
