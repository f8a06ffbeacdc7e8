"""What a checkpoint says of the run that has saved it, beside its weights and positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim.lr_scheduler import LambdaLR

from inbatch.console import make_console, print_plain
from inbatch.gather import sum_over_ranks
from inbatch.step.report import Watched


class RunRecord(Callback):
    """Writes down the settings, the number of ranks and the sizes of chunks, and takes the sizes up again.

    Chunks decide which dropout a text draws, so a run that resumes cuts its batches as they were cut: to the
    planned size, and halved as often as memory has run out.

    Args:
        settings: the whole configuration, sizes resolved.
        saved: the record of the checkpoint that the run resumes from; empty for a fresh start.
    """

    def __init__(self, settings: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self._saved = saved

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cut chunks as often as before."""
        halvings = of_rank(self._saved, "halvings", trainer.global_rank, trainer.world_size)
        for _ in range(halvings or 0):
            pl_module.step.memory.shrink()  # type: ignore[union-attr, operator]
        total, before = cast(Watched, pl_module).total_steps, self._saved.get("total_steps", 0)
        if before and before != total:
            self._say_length(trainer, before, total)

    def _say_length(self, trainer: Trainer, before: int, total: int) -> None:
        """A run of another length has another schedule, which holds from the next step on."""
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        assert isinstance(scheduler, LambdaLR)
        old = trainer.optimizers[0].param_groups[0]["lr"]
        rates = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        for group, (base, factor) in zip(trainer.optimizers[0].param_groups, rates, strict=True):
            group["lr"] = base * factor(scheduler.last_epoch)
        if trainer.is_global_zero:
            print_plain(
                f"resume  the run has {total:,} steps now, and had {before:,}: the learning rate follows the "
                f"schedule of {total:,} steps, {trainer.optimizers[0].param_groups[0]['lr']:.3g} here "
                f"instead of {old:.3g}",
                console=make_console(),
            )

    def make(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The record, as plain values. Collective."""
        tokens = self._settings["gradcache"]["chunk_tokens"] or 0
        halvings = pl_module.step.memory.num_halvings  # type: ignore[union-attr]
        sizes_W2 = torch.zeros(trainer.world_size, 2, dtype=torch.int64)
        sizes_W2[trainer.global_rank] = torch.tensor([tokens, halvings])
        if trainer.world_size > 1:
            sizes_W2 = sum_over_ranks(sizes_W2.to(trainer.strategy.root_device)).cpu()
        return {
            "settings": self._settings,
            "step": trainer.global_step,
            "total_steps": cast(Watched, pl_module).total_steps,
            "world_size": trainer.world_size,
            "chunk_tokens": sizes_W2[:, 0].tolist(),
            "halvings": sizes_W2[:, 1].tolist(),
        }


def of_rank(record: Mapping[str, Any], name: str, rank: int, world_size: int) -> int | None:
    """A rank's size in a record; that of rank 0 where there were other ranks, None where there is none."""
    sizes = record.get(name)
    if not sizes:
        return None
    return int(sizes[rank] if len(sizes) == world_size else sizes[0])
