"""The output directory of a run: every path in it, and the run that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from inbatch.config.schema import RunConfig
from inbatch.console import stop_recording
from inbatch.errors import ConfigError
from inbatch.files import write_text
from inbatch.strategies import is_first_process

# A different value makes it a different run; everything else may change when a run resumes. The optimizer's
# numbers are part of its saved state, so that another learning rate would have no effect.
_IDENTITY = (
    "data.train",
    "encoder",
    "loss",
    "guide.model",
    "guide.revision",
    "guide.max_length",
    "guide.prompts",
    "sampler",
    "optimizer",
    "learning_rate_mapping",
    "global_batch_size",
    "seed",
)
# These change how the run computes, not what it computes.
_MAY_DIFFER = (
    "encoder.attention",
    "encoder.gradient_checkpointing",
    "encoder.trust_remote_code",
    "loss.implementation",
    "optimizer.fused",
)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Knows where everything lies in the output directory at `path`."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint: a file, or a folder of shards."""
        return self.checkpoints / "last.ckpt"

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

    def claim(self, run: RunConfig) -> None:
        """Make sure that a run may write here. If it may not, it stops writing to the log here as well.

        Raises:
            ConfigError: another run has left its results here, or this run has and ``resume=never`` is set.
        """
        try:
            self._claim(run)
        except ConfigError:
            stop_recording(self.path)
            raise

    def write_config(self, run: RunConfig) -> None:
        """Make the folders and write the resolved configuration, once everything else has been checked.

        Only the first process writes, and replaces the file at once, since others may be reading it.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        if is_first_process():
            write_text(self.config, OmegaConf.to_yaml(OmegaConf.create(asdict(run))))

    def _claim(self, run: RunConfig) -> None:
        started = self.last_checkpoint.exists() or self.model.exists()
        if not started or not self.config.exists():
            return
        if run.resume == "never":
            raise ConfigError(
                "output_dir",
                "holds a run, which resume=never would overwrite",
                "set another output_dir, or resume=auto to resume that run",
                value=str(self.path),
            )
        theirs = OmegaConf.to_container(OmegaConf.load(self.config))
        ours = asdict(run)
        for key in _IDENTITY:
            for place, old, new in _differences(_at(theirs, key), _at(ours, key), key):
                if place not in _MAY_DIFFER:
                    raise ConfigError(
                        "output_dir",
                        f"holds another run ({place} was {old!r} and is {new!r})",
                        "set another output_dir, or the old value to resume that run",
                        value=str(self.path),
                    )


def _at(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _differences(old: Any, new: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Place, old and new value of the leaves that differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{place}.{key}")
    elif old != new:
        yield place, old, new
