"""What a checkpoint says of the run that has saved it, beside its weights and positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from inbatch.gather import sum_over_ranks


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
