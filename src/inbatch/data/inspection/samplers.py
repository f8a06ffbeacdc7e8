"""The batches that each sampler would make of the data: steps, rows left out, known false negatives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from inbatch.data.inspection.values import SamplerFacts
from inbatch.data.plan.plan import GlobalBatch, Plan, Sampler, SourceInfo
from inbatch.data.plan.samplers import NoDuplicates, Proportional, RoundRobin, Shuffled
from inbatch.data.report.false_negatives import (
    BatchCounts,
    cells_of,
    count_false_negatives,
    joined,
    summed,
)
from inbatch.data.sources.source import Source
from inbatch.errors import ConfigError

# Batches of a source that are looked at: as many as hold some rows, within bounds.
LOOKED_AT_ROWS = 16_384
FEWEST, MOST = 16, 256
ALL = "all"


class Configured(NamedTuple):
    """The sampler of the configuration.

    name: as it is chosen there.
    plan: its first epoch.
    """

    name: str
    sampler: Sampler
    plan: Plan


def usual_samplers(num_sources: int) -> dict[str, Sampler]:
    """Samplers to compare, by name.

    The batches of one source depend on the order inside it alone, so that there the mixers, which have
    no_duplicates inside, are the same as that.
    """
    if num_sources == 1:
        return {"batch": Shuffled(), "no_duplicates": NoDuplicates()}
    return {
        "round_robin of batch": RoundRobin(within=Shuffled()),
        "proportional of batch": Proportional(within=Shuffled()),
        "round_robin": RoundRobin(within=NoDuplicates()),
        "proportional": Proportional(within=NoDuplicates()),
    }


def compare_samplers(
    sources: Sequence[Source],
    infos: Sequence[SourceInfo],
    *,
    contrasted: Collection[str],
    configured: Configured,
    global_batch_size: int,
    seed: int,
    drop_last: bool,
) -> tuple[SamplerFacts, ...]:
    """Plan an epoch by each of the usual samplers and by the configured one, and look at its batches.

    Args:
        sources: from `load_sources`.
        infos: the same as samplers see them.
        contrasted: names of the sources whose rows are each other's negatives; others are left out.
        configured: the configured sampler.
        global_batch_size, seed, drop_last: as configured.
    """
    samplers = usual_samplers(len(sources))
    own = configured.sampler
    # Of the same name, with other settings, it stands beside the usual one.
    other = type(own).__name__ if configured.name in samplers else configured.name
    same = next((known for known, each in samplers.items() if each == own), other)
    samplers[same] = own
    facts: list[SamplerFacts] = []
    for name, sampler in samplers.items():
        try:
            plan = (
                configured.plan
                if name == same
                else sampler.plan(
                    infos,
                    global_batch_size=global_batch_size,
                    seed=seed,
                    epoch=0,
                    drop_last=drop_last,
                )
            )
        except ConfigError as error:
            facts.append(_facts(name, ALL, False, problem=f"{error.key} {error.problem}"))
            continue
        found = _facts_of(plan, sources, name=name, configured=name == same)
        facts += [fact for fact in found if fact.source in (*contrasted, ALL)]
    return tuple(facts)


def _facts_of(
    plan: Plan, sources: Sequence[Source], *, name: str, configured: bool
) -> list[SamplerFacts]:
    if plan.mixture is not None:
        steps = {ALL: np.arange(plan.num_steps)}
        skipped = {ALL: sum(plan.skipped.values())}
    else:
        steps = {
            source: np.flatnonzero(plan.source_of_step == number)
            for number, source in enumerate(plan.names)
        }
        skipped = plan.skipped
    found = []
    for source, steps_S in steps.items():
        counts = [_count(plan.batch(step), sources) for step in _looked_at(plan, steps_S)]
        found.append(
            _facts(
                name,
                source,
                configured,
                counts=counts,
                num_steps=len(steps_S),
                num_skipped=skipped[source],
            )
        )
    return found


def _looked_at(plan: Plan, steps_S: np.ndarray) -> list[int]:
    """Some of these steps, spread over all of them."""
    if len(steps_S) == 0:
        return []
    batch_rows = len(plan.batch(int(steps_S[0])).rows)
    number = min(max(LOOKED_AT_ROWS // batch_rows, FEWEST), MOST)
    places = np.linspace(0, len(steps_S) - 1, number).astype(np.int64)
    looked_at: list[int] = steps_S[np.unique(places)].tolist()
    return looked_at


def _count(batch: GlobalBatch, sources: Sequence[Source]) -> BatchCounts:
    if batch.sources is None:
        cells = cells_of(sources[batch.source], batch.rows)
    else:
        numbers = np.unique(batch.sources).tolist()
        places = [np.flatnonzero(batch.sources == number) for number in numbers]
        parts = [cells_of(sources[n], batch.rows[place]) for n, place in zip(numbers, places)]
        cells = joined(parts, places)
    return count_false_negatives(cells, len(batch.rows))


def _facts(
    sampler: str,
    source: str,
    configured: bool,
    *,
    problem: str | None = None,
    counts: Sequence[BatchCounts] = (),
    num_steps: int = 0,
    num_skipped: int = 0,
) -> SamplerFacts:
    return SamplerFacts(
        sampler=sampler,
        source=source,
        configured=configured,
        problem=problem,
        num_steps=num_steps,
        num_skipped=num_skipped,
        false_negatives=summed(counts),
    )
