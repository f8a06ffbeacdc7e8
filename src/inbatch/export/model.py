"""The trained encoder as a sentence-transformers directory, whole under every strategy."""

from __future__ import annotations

from functools import partial

from lightning.pytorch import Trainer

from inbatch.encoder import Encoder
from inbatch.encoder.st_write import check_target
from inbatch.folder.model import put_model
from inbatch.folder.paths import RunFolder
from inbatch.strategies import Strategy


def export_model(trainer: Trainer, encoder: Encoder, strategy: Strategy, folder: RunFolder) -> None:
    """Write the weights as they are now; called on every rank, written by rank 0.

    Raises:
        ConfigError: ``model`` in the folder is something other than a model.
    """
    state = strategy.full_state(encoder, rank=trainer.global_rank)
    if trainer.is_global_zero:
        check_target(folder.model)
        write = partial(encoder.save, state_dict=state)
        put_model(folder, write, step=trainer.global_step)
    trainer.strategy.barrier("export")
