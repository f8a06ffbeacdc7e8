"""What a run costs: device-hours and energy of all its starts, and the texts and tokens that it has seen.

Texts and tokens are those that the weights have been trained on, and a checkpoint knows them. Time and
energy are spent whether or not their steps were kept: `cost.json` has those of every start, up to its last
row of the log, checkpoint or evaluation; so a start that was killed counts as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from inbatch.callbacks.pauses import PauseWatcher
from inbatch.device.energy import used_joules
from inbatch.files import write_json
from inbatch.gather import sum_over_ranks
from inbatch.step.report import Watched

_WRITE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run has cost.

    device_hours: of all ranks, from the start of the ranks on; evaluation, saving and the guide included.
    kwh: of their GPUs; None where some start could not measure it.
    num_texts, num_tokens: that the weights were trained on, padding not counted; a text counts each time.
    """

    device_hours: float = 0.0
    kwh: float | None = 0.0
    num_texts: int = 0
    num_tokens: int = 0


class CostMeter(Callback, PauseWatcher):
    """Measures the cost of a run.

    Args:
        path: of `cost.json`.
        energy: what a device has used so far, in joules; None where nothing tells it.
    """

    def __init__(
        self, path: Path, *, energy: Callable[[torch.device], float | None] = used_joules
    ) -> None:
        self._path = path
        self._energy = energy
        self._earlier = Cost()  # device-hours and energy of the starts before this one
        self._start_s = time.monotonic()
        self._start_joules: float | None = None
        self._written_s = float("-inf")
        self._num_texts = 0  # of this rank, in this start
        self._num_tokens = 0
        self._of_checkpoint: dict[str, Any] | None = None
        self._now = Cost()

    @property
    def cost(self) -> Cost:
        """As last read."""
        return self._now

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to measure, before a guide is filled."""
        self._start_s = time.monotonic()
        self._start_joules = self._energy(trainer.strategy.root_device)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find what earlier starts have cost: those in this folder, else those that the checkpoint knows."""
        self._now = self._earlier = trainer.strategy.broadcast(self._known())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count texts and tokens."""
        report = cast(Watched, pl_module).last_step
        if report is not None:
            self._num_texts += report.num_texts
            self._num_tokens += report.num_tokens

    def on_pause(self, trainer: Trainer, name: str) -> None:
        """Nothing: a pause costs as well."""

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Write down what is spent up to here."""
        self.read(trainer)
        self._write(trainer, always=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write down all of it."""
        self.read(trainer)
        self._write(trainer, always=True)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the cost up to here. Collective."""
        checkpoint["cost"] = asdict(self.read(trainer))

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on from the cost of a checkpoint."""
        self._of_checkpoint = checkpoint.get("cost")
        self._now = self._known()  # of a run that has nothing left to do

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        """Values for a row of the log. Collective."""
        cost = self.read(trainer)
        self._write(trainer, always=False)
        energy = {} if cost.kwh is None else {"perf/energy_kwh": cost.kwh}
        return {
            "perf/device_hours": cost.device_hours,
            **energy,
            "perf/texts_seen": cost.num_texts,
            "perf/tokens_seen": cost.num_tokens,
        }

    def read(self, trainer: Trainer) -> Cost:
        """The cost up to now, of all ranks and starts. Collective."""
        device = trainer.strategy.root_device
        used = self._energy(device) if self._start_joules is not None else None
        joules = 0.0 if used is None else used - (self._start_joules or 0.0)
        own = [self._num_texts, self._num_tokens, joules, float(used is None)]
        sums = torch.tensor(own, dtype=torch.float64)
        if trainer.world_size > 1:
            sums = sum_over_ranks(sums.to(device)).cpu()
        texts, tokens, joules, unknown = sums.tolist()
        hours = trainer.world_size * (time.monotonic() - self._start_s) / 3600.0
        before = self._earlier
        kwh = None if unknown or before.kwh is None else before.kwh + joules / 3.6e6
        self._now = Cost(
            device_hours=before.device_hours + hours,
            kwh=kwh,
            num_texts=before.num_texts + int(texts),
            num_tokens=before.num_tokens + int(tokens),
        )
        return self._now

    def _known(self) -> Cost:
        """The cost up to this start, as this rank can see it."""
        saved, found = Cost(**(self._of_checkpoint or {})), _read(self._path)
        return replace(saved, device_hours=found.device_hours, kwh=found.kwh) if found else saved

    def _write(self, trainer: Trainer, *, always: bool) -> None:
        """Write `cost.json` on rank 0, not much more often than every half minute."""
        now = time.monotonic()
        if trainer.is_global_zero and (always or now - self._written_s >= _WRITE_EVERY_S):
            self._written_s = now
            write_json(self._path, asdict(self._now))


def in_words_of_cost(cost: Cost) -> str:
    """As the summary of a run has it."""
    energy = "energy not measured" if cost.kwh is None else f"{cost.kwh:.3f} kWh"
    seen = f"{cost.num_texts:,} texts and {cost.num_tokens:,} tokens seen"
    return f"{cost.device_hours:.3g} device-hours, {energy}, {seen}"


def _read(path: Path) -> Cost | None:
    """What earlier starts in a folder have written; None where nothing is to be read."""
    try:
        return Cost(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
