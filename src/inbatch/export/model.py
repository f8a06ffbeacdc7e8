"""The trained encoder as a sentence-transformers directory, whole under every strategy."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer

from inbatch.encoder import Encoder
from inbatch.strategies import Strategy


def export_model(trainer: Trainer, encoder: Encoder, strategy: Strategy, path: Path) -> None:
    """Write the weights as they are now; called on every rank, written by rank 0, replaced at once."""
    state = strategy.full_state(encoder, rank=trainer.global_rank)
    if trainer.is_global_zero:
        encoder.save(path, state_dict=state)
    trainer.strategy.barrier("export")
