"""How the steps of a run are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """How a step runs.

    gather: "global" contrasts with the rows of all ranks, "ring" does so without holding them all at a time,
        "local" contrasts with the rows of this rank only.
    keep_gib: GiB of activations that gradient caching may hold; None holds all (no second forward).
    accumulate: global batches per optimizer step; each contrasts within itself.
    clip_norm: largest gradient norm, None for no clipping.
    learning_rate_mapping: {regex over parameter names: learning rate}.
    compile: run the encoder's backbone through torch.compile.
    seed: of dropout.
    on_nonfinite: "stop" ends the run at a gradient that is not finite, "skip" leaves its step out.
    tolerated: steps in a row in which a gradient may be infinite, since a loss scaler leaves them out.
    """

    gather: Literal["global", "ring", "local"] = "global"
    keep_gib: float | None = None
    accumulate: int = 1
    clip_norm: float | None = 1.0
    learning_rate_mapping: Mapping[str, float] | None = None
    compile: bool = False
    seed: int = 42
    on_nonfinite: Literal["stop", "skip"] = "stop"
    tolerated: int = 0
