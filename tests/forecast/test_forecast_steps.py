"""A step in numbers: what more ranks, other strategies and slower links do to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.sizes import BERT
from inbatch.forecast.rates import KINDS, Link, of_card
from inbatch.forecast.scaling import Work, best, end_of_scaling, forecast, largest_batch, one_step
from inbatch.forecast.step_time import STRATEGIES
from inbatch.run.memory_plan import GIB

WORK = Work(
    model=BERT,
    device="cuda",
    global_rows=16384,
    num_columns=3,
    text_tokens=32.0,
    guide_dimension=384,
    num_blocks=4,
    max_length=512,
    chunk_tokens="auto",
    keep_gib=0.0,
    optimizer_states=2.0,
    precision="bf16",
)
H100 = of_card("h100")
OPTIONS = {"ranks": 8, "strategy": "ddp", "gather": "global"}


def step(work: Work = WORK, rates=H100, **options):  # type: ignore[no-untyped-def]
    return one_step(work, rates, **{**OPTIONS, **options})


def test_parts_add_up_and_twice_the_ranks_do_half_the_work() -> None:
    one, two = step(ranks=4), step(ranks=8)
    assert one.time.total == pytest.approx(sum(one.time.parts().values()))
    assert two.time.embed == pytest.approx(one.time.embed / 2, rel=1e-6)
    assert two.time.loss == pytest.approx(one.time.loss / 2, rel=1e-6)
    assert step(ranks=1).time.sent_bytes == 0
    assert two.rows_per_s == pytest.approx(WORK.global_rows / two.time.total)


def test_the_bytes_are_those_of_the_strategies() -> None:
    """The formulas of strategies/README.md."""
    share, gradients = 7 / 8, 4 * BERT.parameters
    columns = 4 * 16384 * 3 * (2 * 768 + 384)
    assert step().time.sent_bytes == pytest.approx(share * (columns + 2 * gradients))
    once = step(strategy="deepspeed_stage_2").time.sent_bytes
    assert once == pytest.approx(share * (columns + gradients + gradients))
    chunks = 16384 * 3 * 32 / 8 / 32768
    sharded = step(strategy="fsdp").time.sent_bytes
    assert sharded == pytest.approx(share * (columns + gradients + 3 * chunks * gradients))


def test_a_ring_holds_less_and_computes_more() -> None:
    gathered, ring = step(ranks=64), step(ranks=64, gather="ring")
    assert ring.plan.memory.embeddings < gathered.plan.memory.embeddings
    assert ring.time.loss > gathered.time.loss


@pytest.mark.parametrize("faster", ["tf32", "bf16"])
def test_faster_products_make_a_faster_step(faster: str) -> None:
    exact = step(replace(WORK, precision="fp32"))
    assert step(replace(WORK, precision=faster)).time.embed < exact.time.embed


def test_ranks_that_share_cores_are_slower() -> None:
    assert step(rates=H100.slowed(2)).time.embed == pytest.approx(2 * step().time.embed)


def test_scaling_ends_where_a_slow_network_counts() -> None:
    def steps(bytes_per_s: float):  # type: ignore[no-untyped-def]
        near = dict.fromkeys(KINDS, Link(bytes_per_s, 0.0))
        rates = replace(H100, near=near, far=None)
        every = list(forecast(WORK, rates, most_ranks=64))
        return [s for s in every if s.ranks == 1 or (s.strategy, s.gather) == ("ddp", "global")]

    assert end_of_scaling(steps(1e15)) is None
    slow, slower = (end_of_scaling(steps(rate)) for rate in (5e9, 2e8))
    assert slow is not None
    assert slower is not None
    assert slower[0].ranks < slow[0].ranks
    assert slower[1] in ("gather", "gradients")


def test_losses_of_rows_gather_nothing() -> None:
    work = replace(WORK, num_blocks=0, guide_dimension=0)
    every = list(forecast(work, H100, most_ranks=4))
    assert {s.gather for s in every} == {"global"}
    assert all(s.time.loss == 0 for s in every)


def test_the_fastest_of_a_number_of_ranks() -> None:
    every = list(forecast(WORK, H100, most_ranks=8))
    assert len(every) == 1 + 3 * len(STRATEGIES) * 2
    found = best(every)
    assert list(found) == [1, 2, 4, 8]
    for ranks, fastest in found.items():
        others = [s.time.total for s in every if s.ranks == ranks and s.fits]
        assert fastest.time.total <= 1.05 * min(others)


def test_the_largest_batch_fits_and_twice_as_large_does_not() -> None:
    small = replace(H100, memory_bytes=8 * GIB)
    rows = largest_batch(WORK, small, **OPTIONS)  # type: ignore[arg-type]
    assert step(rates=small, global_rows=rows).fits
    assert not step(rates=small, global_rows=2 * rows).fits
    assert largest_batch(WORK, replace(H100, memory_bytes=GIB), **OPTIONS) == 0  # type: ignore[arg-type]
