"""Where everything lies in the output directory of a run. No other module joins these paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inbatch.folder.saved import LAST

TRIAL = "trial.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths in the output directory at `path`."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def lease(self) -> Path:
        """Who writes here at present."""
        return self.path / "run.lease"

    @property
    def data_report(self) -> Path:
        """The data report for readers; beside it, as `.json`, the one for programs."""
        return self.path / "data_report.md"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """A link to the newest checkpoint: a file, or a folder of shards."""
        return self.checkpoints / LAST

    @property
    def model(self) -> Path:
        """The exported sentence-transformers directory."""
        return self.path / "model"

    @property
    def metrics(self) -> Path:
        """Rows of metrics, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def metrics_csv(self) -> Path:
        """The same rows as a table."""
        return self.path / "metrics.csv"

    @property
    def plots(self) -> Path:
        """Folder of the plots."""
        return self.path / "plots"

    @property
    def examples(self) -> Path:
        """Folder of what the evaluators show."""
        return self.path / "examples"

    @property
    def wandb_id(self) -> Path:
        """The id of the run at Weights & Biases."""
        return self.path / "wandb_id.txt"

    @property
    def result(self) -> Path:
        """The best metric of the finished run."""
        return self.path / "result.json"

    @property
    def card(self) -> Path:
        """What the model's card says, to write it again."""
        return self.path / "card.json"

    @property
    def cost(self) -> Path:
        """Time and energy of the devices, over all starts of the run."""
        return self.path / "cost.json"

    @property
    def nonfinite(self) -> Path:
        """Where and why the run diverged, if it did."""
        return self.path / "nonfinite.json"

    @property
    def trial(self) -> Path:
        """The record of a trial, where the run is one of a sweep."""
        return self.path / TRIAL

    @property
    def jobs(self) -> Path:
        """Folder of the submitted jobs."""
        return self.path / "jobs"
