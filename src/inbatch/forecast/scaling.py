"""One step over many ranks: what fits, how long it takes, and where more ranks stop helping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from inbatch.forecast.rates import Rates
from inbatch.forecast.step_time import STRATEGIES, Gather, StepTime, step_time
from inbatch.run.memory_plan import USABLE, MemoryPlan, choose
from inbatch.run.step_size import ModelSize, StepSize

MOST_RANKS = 1024
LEAST_GAIN = 1.4  # of twice as many ranks, below which scaling has ended
SAME = 0.03  # between two times that an estimate cannot tell apart
GATHERS: tuple[Gather, ...] = ("global", "ring")
_MOST_ROWS = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is trained: the numbers of a run that do not depend on its ranks.

    model: the encoder.
    device: where.
    global_rows: of a batch.
    num_columns, text_tokens: mean texts of a row, and mean computed tokens of one.
    guide_dimension: 0 without guide.
    num_blocks: of scores, see `step_flop`; 0 for losses of rows, which gather nothing.
    max_length: tokens of the longest text.
    chunk_tokens, keep_gib: as configured.
    optimizer_states, averaged: see `step_memory`.
    precision: fp32, tf32 or bf16.
    """

    model: ModelSize
    device: Literal["cpu", "cuda"]
    global_rows: int
    num_columns: float
    text_tokens: float
    guide_dimension: int
    num_blocks: int
    max_length: int
    chunk_tokens: int | Literal["auto"] | None
    keep_gib: float | Literal["auto"] | None
    optimizer_states: float
    precision: str
    averaged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step on some ranks."""

    ranks: int
    strategy: str
    gather: Gather
    global_rows: int
    fits: bool
    plan: MemoryPlan
    time: StepTime

    @property
    def rows_per_s(self) -> float:
        """Of all ranks."""
        return self.global_rows / self.time.total


def forecast(work: Work, rates: Rates, *, most_ranks: int = MOST_RANKS) -> Iterator[Step]:
    """Every strategy, gathered and in a ring, on 1, 2, 4, ... ranks that each have a row at least."""
    ranks = 1
    while ranks <= min(most_ranks, work.global_rows):
        for strategy in STRATEGIES if ranks > 1 else ("ddp",):
            for gather in GATHERS if ranks > 1 and work.num_blocks else GATHERS[:1]:
                yield one_step(work, rates, ranks=ranks, strategy=strategy, gather=gather)
        ranks *= 2


def one_step(
    work: Work,
    rates: Rates,
    *,
    ranks: int,
    strategy: str,
    gather: Gather,
    global_rows: int | None = None,
) -> Step:
    """Estimate one; rows that do not divide over the ranks are rounded up.

    Args:
        work, rates: what is trained, and on what.
        ranks, strategy, gather: how.
        global_rows: None for those of `work`.
    """
    whole = global_rows or work.global_rows
    local = -(-whole // ranks)
    travels = work.num_blocks > 0
    held = {"global": whole, "ring": min(3 * local, whole)}[gather] if travels else local
    step = StepSize(
        device=work.device,
        global_rows=whole,
        local_rows=local,
        held_rows=held,
        num_columns=work.num_columns,
        text_tokens=work.text_tokens,
        guide_dimension=work.guide_dimension,
        world_size=ranks,
        activation_bytes=2 if work.precision in ("bf16", "fp16") else 4,
    )
    usable = USABLE[work.device] * rates.memory_bytes
    plan = choose(
        work.model,
        step,
        chunk_tokens=work.chunk_tokens,
        keep_gib=work.keep_gib,
        max_length=work.max_length,
        usable_bytes=usable,
        num_blocks=work.num_blocks,
        optimizer_states=work.optimizer_states,
        sharding=STRATEGIES[strategy].sharding,
        averaged=work.averaged,
    )
    time = step_time(
        work.model,
        step,
        plan,
        rates,
        strategy=STRATEGIES[strategy],
        gather=gather,
        num_blocks=work.num_blocks,
        precision=work.precision,
    )
    return Step(
        ranks=ranks,
        strategy=strategy,
        gather=gather,
        global_rows=whole,
        fits=plan.memory.total <= usable,
        plan=plan,
        time=time,
    )


def largest_batch(work: Work, rates: Rates, *, ranks: int, strategy: str, gather: Gather) -> int:
    """The most rows of a global batch that fit, a power of two per rank; 0 where none does."""
    rows, found = ranks, 0
    while rows <= _MOST_ROWS:
        step = one_step(
            work, rates, ranks=ranks, strategy=strategy, gather=gather, global_rows=rows
        )
        if not step.fits:
            break
        rows, found = 2 * rows, rows
    return found


def best(steps: Sequence[Step]) -> dict[int, Step]:
    """The fastest step that fits on each number of ranks; the first of those that are as good as that."""
    found: dict[int, Step] = {}
    for step in (step for step in steps if step.fits):
        before = found.get(step.ranks)
        if before is None or step.time.total < (1 - SAME) * before.time.total:
            found[step.ranks] = step
    return found


def end_of_scaling(steps: Sequence[Step]) -> tuple[Step, str] | None:
    """The last step whose ranks pay, and the part that twice as many do not shorten; None if all do.

    Args:
        steps: of one strategy and gather, by number of ranks, each twice that of the one before.
    """
    for one, two in pairwise(steps):
        if one.time.total / two.time.total < LEAST_GAIN:
            before, after = one.time.parts(), two.time.parts()
            lost = {name: after[name] - before[name] / 2 for name in after}
            return one, max(lost, key=lambda name: lost[name])
    return None
