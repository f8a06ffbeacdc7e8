"""What a checkpoint says of the run that has saved it, beside its weights and positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim.lr_scheduler import LambdaLR

from inbatch.console import make_console, print_plain
from inbatch.gather import max_over_ranks, sum_over_ranks
from inbatch.step.report import Watched


class RunRecord(Callback):
    """Writes down the settings, the number of ranks and the sizes of chunks, and takes the sizes up again.

    Chunks decide which dropout a text draws, so a run that resumes cuts its batches as they were cut: to the
    planned size, and halved as often as memory has run out. So it does with the panels of the loss, which
    decide in which order it adds up.

    Args:
        settings: the whole configuration, sizes resolved.
        saved: the record of the checkpoint that the run resumes from; empty for a fresh start.
    """

    def __init__(self, settings: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self._saved = saved

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the sizes of the rank with the least free memory; those of a checkpoint stay. Collective."""
        cache = self._settings["gradcache"]
        own = [cache["chunk_tokens"], cache["keep_gib"]]
        if trainer.world_size == 1 or self._saved or own == [None, None]:
            return
        # Bytes of graphs in whole KiB; None, which is no limit, is the same on all ranks.
        numbers = [own[0] or 0, round((own[1] or 0) * 2**20)]
        device = trainer.strategy.root_device
        lowest = [-n for n in max_over_ranks([-n for n in numbers], device)]
        if lowest == numbers:
            return
        tokens = own[0] if own[0] is None else lowest[0]
        keep = own[1] if own[1] is None else lowest[1] / 2**20
        self._settings["gradcache"] = {**cache, "chunk_tokens": tokens, "keep_gib": keep}
        trainer.datamodule.limit_chunks(tokens)  # type: ignore[attr-defined]
        pl_module.limit_kept(keep)  # type: ignore[operator]
        if trainer.is_global_zero:
            print_plain(
                f"memory  {_named(tokens, keep)} on every rank, since one has less free memory than rank 0",
                console=make_console(),
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cut chunks and panels as often as before."""
        memory: Any = pl_module.step.memory  # type: ignore[union-attr]
        place = (trainer.global_rank, trainer.world_size)
        memory.num_halvings += of_rank(self._saved, "halvings", *place) or 0
        memory.panel_halvings += of_rank(self._saved, "panel_halvings", *place) or 0
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
        memory: Any = pl_module.step.memory  # type: ignore[union-attr]
        sizes_W3 = torch.zeros(trainer.world_size, 3, dtype=torch.int64)
        own = [tokens, memory.num_halvings, memory.panel_halvings]
        sizes_W3[trainer.global_rank] = torch.tensor(own)
        if trainer.world_size > 1:
            sizes_W3 = sum_over_ranks(sizes_W3.to(trainer.strategy.root_device)).cpu()
        return {
            "settings": self._settings,
            "step": trainer.global_step,
            "total_steps": cast(Watched, pl_module).total_steps,
            "world_size": trainer.world_size,
            "chunk_tokens": sizes_W3[:, 0].tolist(),
            "halvings": sizes_W3[:, 1].tolist(),
            "panel_halvings": sizes_W3[:, 2].tolist(),
        }


def _named(tokens: int | None, keep_gib: float | None) -> str:
    """Sizes in words."""
    chunks = "" if tokens is None else f"chunks of at most {tokens} tokens"
    kept = "" if keep_gib is None else f"{keep_gib:.4g} GiB of graphs kept"
    return ", ".join(filter(None, (chunks, kept)))


def of_rank(record: Mapping[str, Any], name: str, rank: int, world_size: int) -> int | None:
    """A rank's size in a record; that of rank 0 where there were other ranks, None where there is none."""
    sizes = record.get(name)
    if not sizes:
        return None
    return int(sizes[rank] if len(sizes) == world_size else sizes[0])
