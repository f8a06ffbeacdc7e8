"""What a run that has diverged leaves: where it was, and the gradients, in ``nonfinite.json``."""

from __future__ import annotations

import math
from typing import Any

from inbatch.errors import ConfigError
from inbatch.export.card_data import CardData
from inbatch.files import remove, write_json
from inbatch.folder.paths import RunFolder
from inbatch.run.datamodule import BatchModule
from inbatch.step.finite import NonFiniteGradient
from inbatch.strategies import is_first_process

_FIX = "lower optimizer.lr or clip_norm, look at the rows, or set on_nonfinite=skip"


def check_card(card: CardData, folder: RunFolder, *, step: int) -> None:
    """Make sure that the exported model works, by the example on its card; remove it if it does not.

    Raises:
        ConfigError: it gives embeddings that are not finite.
    """
    scores = [s for row in (card.usage and card.usage.similarities) or () for s in row]
    if not all(map(math.isfinite, scores)):
        remove(folder.model)
        raise ConfigError(
            "training",
            f"diverged at step {step}: the trained model gives embeddings that are not finite",
            _FIX,
        )


def diverged(error: NonFiniteGradient, folder: RunFolder, data: BatchModule) -> ConfigError:
    """Write down where a gradient was not finite; return the error that ends the run.

    Args:
        error: on every rank the same.
        folder: of the run.
        data: whose rows were trained on.
    """
    place = error.place
    if is_first_process():
        found: dict[str, Any] = {
            **place._asdict(),
            "rows": data.rows_of_batch(place.batch).tolist(),
            "gradient_norms": {name: str(norm) for name, norm in error.norms.items()},
        }
        write_json(folder.nonfinite, found)
    return ConfigError(
        "training",
        f"diverged at step {place.step}: gradients or weights are not finite, see {folder.nonfinite}",
        _FIX,
    )
