"""Whole runs for tests: the real configuration, tiny sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from omegaconf import DictConfig

from helpers.keystone import quiet
from helpers.tiny import tiny_texts
from inbatch.cli.overrides import complete_overrides
from inbatch.cli.train import CONF_DIR
from inbatch.cluster.stop_request import StopRequest
from inbatch.config.check import check_config
from inbatch.config.composition import compose
from inbatch.run import callbacks
from inbatch.run.train import train

TINY = (
    "encoder=tiny",
    "encoder.config.hidden_size=32",
    "encoder.config.intermediate_size=64",
    "encoder.tokenizer.train.vocab_size=300",
    "trainer.accelerator=cpu",
    "precision=fp32",  # the default is bf16 on some CPUs, and sums there depend on more than a test says
    "trainer.log_every_steps=1",
    "optimizer.lr=1e-3",
    "schedule=constant",
)


def compose_run(*overrides: str) -> DictConfig:
    """The configuration that a command line gives."""
    return compose("train", complete_overrides(overrides, Path(CONF_DIR)))


def no_plots(patch: pytest.MonkeyPatch) -> None:
    """Leave out what takes half the time of a tiny run, where nobody looks at it."""
    patch.setattr("inbatch.export.plots.plot_run", lambda *args, **kwargs: [])


def run_train(*overrides: str, plots: bool = False) -> Path:
    """Train in this process, without plots unless they are asked for; returns the output directory."""
    with pytest.MonkeyPatch.context() as patch:
        if not plots:
            no_plots(patch)
        return train(check_config(compose_run(*TINY, *overrides))).output_dir


def train_as_rank(rank: int, world_size: int, overrides: list[str]) -> None:
    """Train in this rank; for `helpers.distributed.run`."""
    quiet()
    run_train(*overrides)


def run_with(callback: Callback, stop: StopRequest | None, *overrides: str) -> None:
    """Train with one more callback: the first where it asks to stop, the last otherwise. No plots."""
    original = callbacks.make_callbacks

    def make_callbacks(*args: Any, **kwargs: Any) -> callbacks.RunCallbacks:
        made = original(*args, **kwargs)
        made.all.insert(0 if stop else len(made.all), callback)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inbatch.run.train.make_callbacks", make_callbacks)
        no_plots(patch)
        train(check_config(compose_run(*TINY, *overrides)), stop)


def write_triplets(path: Path, num_rows: int = 60, *, seed: int = 0) -> Path:
    """A jsonl file of random triplets."""
    columns = [tiny_texts(num_rows, seed=seed + i, min_words=3) for i in range(3)]
    with path.open("w") as file:
        for row in zip(*columns, strict=True):
            file.write(
                json.dumps(dict(zip(("query", "positive", "negative"), row, strict=True))) + "\n"
            )
    return path


def weights(output_dir: Path) -> dict[str, torch.Tensor]:
    """Weights of the exported model."""
    from safetensors.torch import load_file

    return load_file(output_dir / "model" / "model.safetensors")


def metrics(output_dir: Path) -> list[dict[str, Any]]:
    """Rows of the run's log."""
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
