"""Parameter groups, optimizers, schedules."""

from inbatch.optim.again import step_again
from inbatch.optim.groups import NO_DECAY, parameter_groups
from inbatch.optim.optimizers import adam, adamw
from inbatch.optim.schedules import (
    Constant,
    ConstantWithWarmup,
    Cosine,
    CosineWithMinLr,
    CosineWithRestarts,
    InverseSqrt,
    Linear,
    Polynomial,
    Schedule,
    WarmupStableDecay,
    to_lambda_lr,
)

__all__ = [
    "NO_DECAY",
    "Constant",
    "ConstantWithWarmup",
    "Cosine",
    "CosineWithMinLr",
    "CosineWithRestarts",
    "InverseSqrt",
    "Linear",
    "Polynomial",
    "Schedule",
    "WarmupStableDecay",
    "adam",
    "adamw",
    "parameter_groups",
    "step_again",
    "to_lambda_lr",
]
