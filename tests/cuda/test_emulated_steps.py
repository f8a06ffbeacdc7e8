"""A training step on a CUDA device: the host waits for nothing, and launches at most so many kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from helpers.emulated_cuda.process import group, on_gpu
from helpers.keystone import quiet
from helpers.runs import run_with, write_triplets
from inbatch.step.timer import StepTimer

pytestmark = group

STEPS = 5
OPTIONS = {  # losses and architectures: test_fake_steps.py
    "in-batch negatives": [],
    "second forwards": ["gradcache.chunk_tokens=128", "gradcache.keep_gib=0"],
    "some graphs kept": ["gradcache.chunk_tokens=128", "gradcache.keep_gib=1e-4"],
    "stored guide": ["loss=gist", "guide.model={guide}", "guide.store_dir={folder}/guide"],
    "accumulated": ["accumulate=2"],
}
# Kernels of a step of a BERT of two layers in bf16, in one chunk whose graph is kept.
STATED = {"embed": 75, "gather": 0, "loss": 191, "backward": 139, "optimizer": 13}


class Kernels:
    """A mark in a device's order of work; the "seconds" between two are the kernels between them."""

    def __init__(self) -> None:
        self.number = counted("kernels").total()

    def is_past(self) -> bool:
        """Always."""
        return True

    def seconds_until(self, later: Kernels) -> float:
        """Kernels between two marks."""
        return float(later.number - self.number)


class Watch(Callback):
    """From the end of the first step to that of the last but one, operators that wait are errors.

    What is between two steps belongs to it: batches come to the device, callbacks look at the step.
    """

    def __init__(self) -> None:
        self.kernels: dict[str, float] = {}
        self.waits: Counter[str] = Counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.step.timer = StepTimer(Kernels)  # type: ignore[assignment, union-attr]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if trainer.global_step == 1 and not torch.cuda.get_sync_debug_mode():
            self.waits = counted("waits")
            torch.cuda.set_sync_debug_mode("error")
        if trainer.global_step == STEPS - 1 and torch.cuda.get_sync_debug_mode():
            torch.cuda.set_sync_debug_mode("default")
            self.waits = counted("waits") - self.waits
            self.kernels = dict(pl_module.last_step.phases)  # type: ignore[union-attr]


def counted(what: str) -> Counter[str]:
    """Kernels by operator, or waits by reason."""
    lines = getattr(torch.ops.emulated_cuda, what)()
    return Counter({name: int(number) for name, number in (line.split("\t") for line in lines)})


def steps(options: list[str]) -> tuple[dict[str, float], Counter[str]]:
    quiet()
    watch = Watch()
    run_with(watch, None, *options)
    return watch.kernels, watch.waits


@pytest.mark.parametrize("name", OPTIONS)
def test_the_host_waits_for_nothing(tmp_path: Path, tiny_bert: Path, name: str) -> None:
    """But for the gradient norm of the step before, which it reads to see that it is finite."""
    options = [option.format(folder=tmp_path, guide=tiny_bert) for option in OPTIONS[name]]
    kernels, waits = on_gpu(steps, [*_options(tmp_path), *options])
    assert waits.keys() == {"event"}
    if name == "in-batch negatives":
        assert {phase: n for phase, n in kernels.items() if n > STATED[phase]} == {}


def _options(folder: Path) -> list[str]:
    return [
        f"data.train={write_triplets(folder / 'triplets.jsonl', 120)}",
        f"output_dir={folder / 'run'}",
        *("trainer.accelerator=cuda", "precision=bf16", "global_batch_size=12"),
        *(f"trainer.max_steps={STEPS}", "trainer.max_epochs=-1", "trainer.log_every_steps=50"),
    ]
