"""Schedules against transformers, their conditions, and the LambdaLR they drive."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from inbatch.errors import ConfigError
from inbatch.optim import (
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

LR = 0.5


def optimizer_of(*lrs: float) -> torch.optim.SGD:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=lrs[0])


def reference(name: str, warmup: int, total: int, kwargs: dict[str, Any]) -> list[float]:
    scheduler = get_scheduler(name, optimizer_of(LR), warmup, total, kwargs)
    return [scheduler.lr_lambdas[0](step) for step in range(total + 1)]


CASES = [
    ("linear", Linear, {}, {}),
    ("cosine", Cosine, {}, {}),
    ("cosine", Cosine, {"num_cycles": 1.5}, {"num_cycles": 1.5}),
    ("cosine_with_restarts", CosineWithRestarts, {}, {}),
    ("cosine_with_restarts", CosineWithRestarts, {"num_cycles": 3}, {"num_cycles": 3}),
    ("polynomial", Polynomial, {}, {"lr_end": 0.0}),
    (
        "polynomial",
        Polynomial,
        {"power": 2.0, "min_lr_ratio": 0.2},
        {"power": 2.0, "lr_end": 0.2 * LR},
    ),
    ("constant_with_warmup", ConstantWithWarmup, {}, {}),
    ("inverse_sqrt", InverseSqrt, {}, {}),
    ("inverse_sqrt", InverseSqrt, {"timescale": 40}, {"timescale": 40}),
    (
        "cosine_with_min_lr",
        CosineWithMinLr,
        {"min_lr_ratio": 0.1},
        {"min_lr": 0.1 * LR},
    ),
]


@pytest.mark.parametrize(("warmup", "total"), [(0, 50), (5, 50), (13, 41), (1, 2)])
@pytest.mark.parametrize(("name", "kind", "own", "theirs"), CASES)
def test_equals_transformers(
    name: str, kind: Any, own: dict[str, Any], theirs: dict[str, Any], warmup: int, total: int
) -> None:
    schedule = kind(warmup_steps=warmup, **own)
    factors = [schedule.factor(step, total) for step in range(total + 1)]
    assert factors == pytest.approx(reference(name, warmup, total, theirs), abs=1e-12)


@pytest.mark.parametrize("warmup_type", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize("decay_type", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize(("warmup", "falling", "minimum"), [(0, 10, 0.0), (5, 12, 0.1), (9, 41, 0)])
def test_warmup_stable_decay_equals_transformers(
    warmup: int, falling: int, minimum: float, warmup_type: Any, decay_type: Any
) -> None:
    shapes = {"warmup_type": warmup_type, "decay_type": decay_type, "min_lr_ratio": minimum}
    schedule = WarmupStableDecay(warmup_steps=warmup, decay_steps=falling, **shapes)
    factors = [schedule.factor(step, 50) for step in range(51)]
    theirs = reference("warmup_stable_decay", warmup, 50, {"num_decay_steps": falling, **shapes})
    assert factors == pytest.approx(theirs, abs=1e-12)


def test_constant_equals_transformers() -> None:
    assert [Constant().factor(step, 9) for step in range(10)] == reference("constant", 0, 9, {})


def test_after_the_end_factors_stay() -> None:
    """A cosine that went on would rise again."""
    for schedule in (Linear(), Cosine(), CosineWithRestarts(num_cycles=2)):
        assert schedule.factor(60, 50) == pytest.approx(0.0)
    assert CosineWithMinLr(min_lr_ratio=0.1).factor(60, 50) == pytest.approx(0.1)


@pytest.mark.parametrize(("ratio", "total", "steps"), [(0.1, 50, 5), (0.1, 41, 5), (0.0, 41, 0)])
def test_warmup_ratio_is_rounded_up(ratio: float, total: int, steps: int) -> None:
    by_ratio, by_steps = Linear(warmup_ratio=ratio), Linear(warmup_steps=steps)
    for step in range(total + 1):
        assert by_ratio.factor(step, total) == by_steps.factor(step, total)


def test_decay_ratio() -> None:
    by_ratio = WarmupStableDecay(warmup_ratio=0.1, decay_ratio=0.2)
    by_steps = WarmupStableDecay(warmup_steps=5, decay_steps=10)
    for step in range(51):
        assert by_ratio.factor(step, 50) == by_steps.factor(step, 50)


@pytest.mark.parametrize(
    ("kind", "kwargs", "named"),
    [
        (
            Linear,
            {"warmup_steps": 5, "warmup_ratio": 0.1},
            "warmup_steps=5 does not go with warmup_ratio=0.1",
        ),
        (Linear, {"warmup_steps": 0.1}, "warmup_ratio"),
        (Linear, {"warmup_steps": -1}, "warmup_steps=-1 is not"),
        (Cosine, {"warmup_ratio": 1.5}, "warmup_ratio=1.5 is out of range"),
        (CosineWithMinLr, {"min_lr_ratio": 2.0}, "min_lr_ratio=2.0"),
        (Polynomial, {"min_lr_ratio": -1.0}, "min_lr_ratio=-1.0"),
        (InverseSqrt, {"timescale": 0}, "timescale=0"),
        (WarmupStableDecay, {}, "decay_steps"),
        (WarmupStableDecay, {"decay_steps": 5, "decay_ratio": 0.1}, "decay_steps=5"),
        (
            WarmupStableDecay,
            {"decay_steps": 5, "decay_type": "cubic"},
            "decay_type='cubic' is not one of linear, cosine",
        ),
    ],
)
def test_mistakes_name_the_field(kind: Any, kwargs: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        kind(**kwargs)


def test_overlapping_phases_are_refused() -> None:
    schedule = WarmupStableDecay(warmup_steps=30, decay_steps=30)
    assert schedule.factor(0, 60) == 0.0
    with pytest.raises(ConfigError, match="run of 50 steps"):
        to_lambda_lr(optimizer_of(LR), schedule, 50)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="total_steps=0"):
        to_lambda_lr(optimizer_of(LR), Linear(), 0)


def run(schedule: Schedule, *, steps: int, resume_at: int | None = None) -> list[list[float]]:
    """Learning rates of each update, with a restart from a saved state where asked."""
    optimizer = optimizer_of(1.0, 0.1)
    scheduler = to_lambda_lr(optimizer, schedule, steps)
    seen = []
    for step in range(steps):
        if step == resume_at:
            buffer = io.BytesIO()
            torch.save((optimizer.state_dict(), scheduler.state_dict()), buffer)
            buffer.seek(0)
            optimizer = optimizer_of(1.0, 0.1)
            scheduler = to_lambda_lr(optimizer, schedule, steps)
            states = torch.load(buffer, weights_only=True)
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def test_lambda_lr_multiplies_each_group() -> None:
    schedule = Linear(warmup_steps=2)
    for step, (first, second) in enumerate(run(schedule, steps=10)):
        assert first == pytest.approx(schedule.factor(step, 10))
        assert second == pytest.approx(0.1 * schedule.factor(step, 10))


def test_lambda_lr_resumes() -> None:
    schedule = Cosine(warmup_ratio=0.3)
    assert run(schedule, steps=10, resume_at=6) == run(schedule, steps=10)
