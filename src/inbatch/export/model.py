"""The trained encoder as a sentence-transformers directory, whole under every strategy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer

if TYPE_CHECKING:
    from inbatch.run.module import BiEncoderModule


def export_model(trainer: Trainer, module: BiEncoderModule, path: Path) -> None:
    """Write the weights as they are now; called on every rank, written by rank 0, replaced at once."""
    state = module.strategy.full_state(module)
    if trainer.is_global_zero:
        module.encoder.save(path, state_dict=state)
    trainer.strategy.barrier("export")
