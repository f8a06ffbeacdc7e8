"""Rates of cards and of a doctor's file, and what they say of a collective."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from inbatch.errors import ConfigError
from inbatch.forecast.rates import (
    CARDS,
    KINDS,
    Kind,
    Link,
    Rates,
    fit_link,
    of_card,
    of_doctor,
    rounds,
    sent_bytes,
)

NAMES = list(json.loads(CARDS.read_text()))


def measured(kind: Kind, link: Link, ranks: int = 2) -> list[dict[str, float]]:
    """Collectives that take exactly what a link says."""
    return [
        {
            "bytes": size,
            "ranks": ranks,
            "seconds": rounds(kind, ranks) * link.latency_s
            + sent_bytes(kind, size, ranks) / link.bytes_per_s,
        }
        for size in (2**12, 2**16, 2**20, 2**24)
    ]


def doctors(**changes: Any) -> dict[str, Any]:
    """A doctor.json of two ranks on CPUs."""
    link = Link(1e9, 1e-4)
    return {
        "device": {"name": "Some CPU", "type": "cpu", "native_bf16": True},
        "rates": {
            "matmul_flops": {"float32": 1e11, "tf32": None, "bfloat16": 2e11},
            "memory_bytes_per_s": 1e10,
            "collectives": {kind: measured(kind, link) for kind in KINDS},
        },
        "memory_bytes": 8e9,
        **changes,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_is_found_from_times(kind: Kind) -> None:
    link = fit_link(kind, measured(kind, Link(2e9, 3e-5), ranks=4))
    assert link.bytes_per_s == pytest.approx(2e9, rel=1e-3)
    assert link.latency_s == pytest.approx(3e-5, rel=1e-3)


def test_times_that_shrink_with_size_give_no_negative_rate() -> None:
    rows = [
        {"bytes": 2**10, "ranks": 2, "seconds": 2.0},
        {"bytes": 2**20, "ranks": 2, "seconds": 1.0},
    ]
    link = fit_link("all_gather", rows)
    assert link.bytes_per_s > 0
    assert link.latency_s >= 0


def test_bytes_that_each_rank_sends() -> None:
    assert sent_bytes("all_gather", 100, 4) == sent_bytes("reduce_scatter", 100, 4) == 75
    assert sent_bytes("all_reduce", 100, 4) == 150


def test_a_doctors_file_is_read() -> None:
    rates = of_doctor(doctors(), name="doctor.json")
    assert (rates.name, rates.device, rates.native_bf16) == ("Some CPU", "cpu", True)
    assert rates.matmul_flops == {"float32": 1e11, "bfloat16": 2e11}
    assert rates.memory_bytes == 4e9  # two ranks share it
    assert rates.seconds("all_gather", 2e9, 2) == pytest.approx(1.0, rel=1e-2)
    assert rates.seconds("all_gather", 2e9, 1) == 0.0
    assert rates.slowed(2).matmul_flops["float32"] == 5e10


def test_one_process_has_measured_no_collective() -> None:
    found = doctors()
    found["rates"]["collectives"] = {kind: [] for kind in KINDS}
    assert of_doctor(found, name="doctor.json").seconds("all_reduce", 1e9, 8) == 0.0


@pytest.mark.parametrize("missing", ["device", "rates", "memory_bytes"])
def test_a_file_without_rates_is_refused(missing: str) -> None:
    found = {key: value for key, value in doctors().items() if key != missing}
    with pytest.raises(ConfigError, match=f"names x.json, which has no '{missing}': write it with"):
        of_doctor(found, name="x.json")


@pytest.mark.parametrize("name", NAMES)
def test_a_card_has_a_source_and_rates_below_its_peaks(name: str) -> None:
    sheet = json.loads(CARDS.read_text())[name]
    assert sheet["source"].startswith("https://")
    rates = of_card(name)
    assert rates.native_bf16
    assert (
        rates.matmul_flops["float32"] <= rates.matmul_flops["tf32"] < rates.matmul_flops["bfloat16"]
    )
    assert rates.matmul_flops["bfloat16"] < sheet["matmul_flops"]["bfloat16"]
    assert rates.memory_bytes == sheet["memory_bytes"]


def test_the_slower_link_counts_between_nodes() -> None:
    rates = of_card("h100")
    within, across = (rates.seconds("all_reduce", 1e9, ranks) for ranks in (8, 16))
    assert across > 5 * within
    faster = of_card("h100", far_gbit_per_s=800).seconds("all_reduce", 1e9, 16)
    assert within < faster < across


def test_an_unknown_card_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"^plan.rates='h10' is neither a file nor a card: did you"
    ):
        of_card("h10")


def test_hops_of_a_ring_cost_what_they_send() -> None:
    rates = Rates(
        name="x",
        device="cuda",
        native_bf16=True,
        matmul_flops={"float32": 1.0},
        memory_bytes_per_s=1.0,
        memory_bytes=1.0,
        near=dict.fromkeys(KINDS, Link(100.0, 0.5)),
    )
    assert rates.hop_seconds(200.0, 4) == 2.5
    assert rates.hop_seconds(200.0, 1) == 0.0
    assert math.isclose(rates.seconds("all_reduce", 100.0, 4), 4 * 0.5 + 1.5)
