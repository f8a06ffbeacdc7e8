"""What every sampler's plan must do, over all of conf/sampler; and the plan's own functions."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from inbatch.batch.slices import slice_rows
from inbatch.data.plan.permutation import keyed_hash
from inbatch.data.plan.plan import (
    Plan,
    Sampler,
    SourceInfo,
    duplicate_share,
)
from inbatch.data.plan.samplers import NoDuplicates, Proportional, Shuffled
from inbatch.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "sampler").glob("*.yaml"))
SINGLE = {"batch", "no_duplicates", "group_by_label"}


def source(name: str, num_rows: int, *, columns: int = 2, texts: int = 1 << 40) -> SourceInfo:
    """A source of random texts, five of a label on average; few `texts` make many of them equal."""
    generator = np.random.default_rng(num_rows)
    hashes = generator.integers(0, texts, (columns, num_rows), dtype=np.uint64)
    labels = partial(np.asarray, generator.integers(0, 1 + num_rows // 5, num_rows))
    return SourceInfo(name, num_rows, partial(np.asarray, hashes), labels=labels)


def sampler_of(config: Path, **overrides: Any) -> tuple[Sampler, list[SourceInfo]]:
    """A shipped sampler, and sources that it can plan."""
    node = OmegaConf.merge(OmegaConf.load(config), overrides)
    sources = [source("a", 700, texts=600), source("b", 300), source("c", 150)]
    if config.stem == "weighted":
        node.weights = {"a": 1, "b": 2, "c": 1}
    return instantiate(node), sources[:1] if config.stem in SINGLE else sources


def plan_of(sampler: Sampler, sources: list[SourceInfo], **overrides: Any) -> Plan:
    arguments = {"global_batch_size": 16, "seed": 3, "epoch": 0, "drop_last": True, **overrides}
    return sampler.plan(sources, **arguments)


def listed(plan: Plan) -> list[tuple[int, list[int]]]:
    return [(batch.source, batch.rows.tolist()) for batch in plan]


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_a_batch_is_found_from_its_number_as_in_order(config: Path) -> None:
    sampler, sources = sampler_of(config)
    plan = plan_of(sampler, sources)
    batches = listed(plan)
    assert len(batches) == plan.num_steps
    for step in reversed(range(plan.num_steps)):
        fresh = plan_of(sampler, sources) if step % 10 == 0 else plan
        again = fresh.batch(step)
        assert (again.step, again.source, again.rows.tolist()) == (step, *batches[step])
    with pytest.raises(IndexError, match=f"step {plan.num_steps}"):
        plan.batch(plan.num_steps)


def test_order_depends_on_seed_and_epoch_alone(config: Path) -> None:
    sampler, sources = sampler_of(config)
    first = listed(plan_of(sampler, sources))
    assert first == listed(plan_of(sampler, sources))
    assert first != listed(plan_of(sampler, sources, epoch=1))
    assert first != listed(plan_of(sampler, sources, seed=4))


def test_num_steps_is_exact_and_batches_are_full(config: Path) -> None:
    sampler, sources = sampler_of(config)
    plan = plan_of(sampler, sources)
    assert [batch.step for batch in plan] == list(range(plan.num_steps))
    assert all(len(batch.rows) == 16 for batch in plan)


@pytest.mark.parametrize("drop_last", [True, False])
def test_skipped_counts_the_rows_in_no_batch(config: Path, drop_last: bool) -> None:
    sampler, sources = sampler_of(config)
    plan = plan_of(sampler, sources, drop_last=drop_last)
    for number, info in enumerate(sources):
        seen = np.unique(
            np.concatenate([[], *(batch.rows for batch in plan if batch.source == number)])
        )
        assert seen.min() >= 0
        assert seen.max() < info.num_rows
        in_first_pass = info.num_rows - len(seen)
        repeated = sum(len(b.rows) for b in plan if b.source == number) > len(seen)
        assert plan.skipped[info.name] == in_first_pass or (
            repeated and plan.skipped[info.name] >= in_first_pass
        )


def test_plans_can_be_sent_to_a_worker(config: Path) -> None:
    plan = plan_of(*sampler_of(config))
    assert listed(pickle.loads(pickle.dumps(plan))) == listed(plan)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 8, 40])
@pytest.mark.parametrize("num_rows", [0, 1, 5, 16, 33])
def test_slices_of_all_ranks_are_the_global_batch(num_rows: int, world_size: int) -> None:
    rows = np.arange(num_rows) * 3
    slices = [slice_rows(rows, rank, world_size) for rank in range(world_size)]
    np.testing.assert_array_equal(np.concatenate(slices), rows)
    sizes = [len(part) for part in slices]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


def test_several_sources_need_a_mixer() -> None:
    with pytest.raises(ConfigError, match=r"there are 2 \(a, b\).*proportional"):
        plan_of(NoDuplicates(), [source("a", 100), source("b", 100)])


@pytest.mark.parametrize(
    ("sources", "overrides", "message"),
    [
        ([], {}, "names no source"),
        ([source("a", 10)], {}, "global_batch_size=16 leaves no full batch of source 'a'"),
        ([SourceInfo("a", 0)], {}, "source 'a' has 0 rows"),
        ([source("a", 100)], {"global_batch_size": 0}, "global_batch_size=0 is below 1"),
        ([source("a", 100), source("a", 99)], {}, "'a' occurs twice"),
    ],
)
def test_impossible_sources_are_refused(
    sources: list[SourceInfo], overrides: dict[str, int], message: str
) -> None:
    for mixed in (False, True):
        with pytest.raises(ConfigError, match=message):
            plan_of(Proportional(Shuffled(), mixed=mixed), sources, **overrides)


def test_duplicate_share_counts_batches_and_rows() -> None:
    hashes = np.arange(64, dtype=np.uint64).reshape(2, 32)
    plan = plan_of(Shuffled(), [SourceInfo("a", 32, lambda: hashes)], global_batch_size=8)
    assert duplicate_share(hashes, plan) == 0
    hashes[1] = hashes[0]  # a text twice inside one row is no duplicate
    assert duplicate_share(hashes, plan) == 0
    first, second = plan.batch(1).rows[[2, 5]]
    hashes[1, second] = hashes[0, first]
    assert duplicate_share(hashes, plan) == 1 / 4


def test_duplicate_share_looks_at_one_source() -> None:
    sources = [source("a", 128), source("b", 128, texts=20)]
    shares = {}
    for mixed in (False, True):
        plan = plan_of(Proportional(Shuffled(), mixed=mixed), sources)
        for info in sources:
            assert info.hashes is not None
            shares[info.name, mixed] = duplicate_share(info.hashes(), plan, source=info.name)
    assert shares["a", False] == shares["a", True] == 0
    assert shares["b", False] == 1
    assert 0.5 < shares["b", True] <= 1


def test_orders_stay_as_they_are() -> None:
    """Golden rows: whoever changes them raises the order version of the fingerprint."""
    hashes = keyed_hash(np.arange(10_000, dtype=np.uint64) % 3000, key=0).reshape(2, 5000)
    infos = [SourceInfo("a", 5000, lambda: hashes)]
    assert plan_of(Shuffled(), infos).batch(2).rows[:4].tolist() == [1966, 2417, 2808, 2477]
    assert plan_of(NoDuplicates(), infos).batch(2).rows[:4].tolist() == [2346, 1205, 4637, 1785]
