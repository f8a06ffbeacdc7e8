"""What a run's stored guide embeds before the first step, and what when training gets there."""

from __future__ import annotations

import math

from inbatch.config.schema import TrainerConfig
from inbatch.guide.fill import WINDOW_TEXTS
from inbatch.guide.portions import Portion, portions_of_run
from inbatch.run.auto_sizes import texts_per_row
from inbatch.run.datamodule import BatchModule
from inbatch.run.parts import Parts
from inbatch.strategies import World

FIRST_TEXTS = WINDOW_TEXTS  # of each rank: even these are then sorted by length together


def guide_portions(
    trainer: TrainerConfig, world: World, parts: Parts, data: BatchModule, *, accumulate: int
) -> tuple[Portion, ...]:
    """The portions in which a stored guide embeds a run's texts, see `portions_of_run`.

    The first is of as many batches as have a window of texts for each rank: less than a minute for a small
    model on a CPU.
    """
    planned = data.batches_per_epoch
    per_batch = max(
        parts.batch_sizes[source.name] * texts_per_row(source) for source in parts.sources
    )
    limits = [
        limit
        for limit, given in (
            (trainer.max_steps * accumulate, trainer.max_steps),
            (trainer.max_epochs * planned, trainer.max_epochs),
        )
        if given > 0
    ]
    return portions_of_run(
        data.rows_between,
        planned=planned,
        num_batches=min(limits, default=math.inf),
        first=max(1, math.ceil(FIRST_TEXTS * world.size / per_batch)),
    )
