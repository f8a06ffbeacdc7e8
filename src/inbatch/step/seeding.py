"""The place of a batch in a run: in its optimizer step, and for the random numbers of dropout."""

from __future__ import annotations

import numpy as np
import torch


def accumulation(step: int, num_steps: int, accumulate: int) -> tuple[int, int]:
    """Return the position of a batch in its optimizer step, and how many batches that step holds.

    The last optimizer step of an epoch holds the rest: 10 batches by 4 give sizes 4, 4, 2.
    """
    start = step - step % accumulate
    return step - start, min(accumulate, num_steps - start)


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Make dropout a function of the place in the run, so that a resumed run needs no random state.

    Ranks draw differently, since they hold different rows.
    """
    mixed = np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0]))
