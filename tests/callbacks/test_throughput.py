"""Arithmetic of the throughput meter, on steps whose numbers are given."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.watched_run import COMPUTED, ROWS, TOKENS, report
from inbatch.callbacks.throughput import (
    WINDOW_STEPS,
    StepClock,
    StepCost,
    ThroughputMeter,
    throughput,
)
from inbatch.step.report import OpenRow


def test_rates_are_sums_by_seconds() -> None:
    costs = [
        StepCost(1.0, 10, 60, 100, {"embed": 0.5}),
        StepCost(3.0, 30, 100, 100, {"embed": 0.5, "guide": 2.0}),
    ]
    assert throughput(costs) == pytest.approx(
        {
            "perf/samples_per_s": 40 / 4,
            "perf/tokens_per_s": 160 / 4,
            "perf/padding_share": 40 / 200,
            "perf/time_share_embed": 1 / 4,
            "perf/time_share_guide": 2 / 4,
        }
    )


def test_window_slides() -> None:
    meter = ThroughputMeter()
    assert meter.metrics() == {}
    for seconds in (100.0, *[1.0, 3.0] * (WINDOW_STEPS // 2)):
        meter.add(report(0.0), seconds=seconds)
    metrics = meter.metrics()
    assert metrics["perf/samples_per_s"] == pytest.approx(2 * ROWS / 4)
    assert metrics["perf/tokens_per_s"] == pytest.approx(2 * TOKENS / 4)
    assert metrics["perf/padding_share"] == pytest.approx(1 - TOKENS / COMPUTED)
    assert metrics["perf/time_share_embed"] == pytest.approx(2 * 0.5 / 4)
    assert "perf/mfu" not in metrics


def test_model_flop_utilization() -> None:
    meter = ThroughputMeter(num_parameters=1_000_000, peak_flop_per_s=1e12)
    meter.add(report(0.0), seconds=0.5)
    # 60 tokens in 0.5 s by 6 * 10**6 operations each, of 10**12
    assert meter.metrics()["perf/mfu"] == pytest.approx(6e6 * 120 / 1e12)


def test_steps_without_tokens_have_no_rates() -> None:
    assert throughput([StepCost(1.0, 0, 0, 0, {})]) == {}


# In a process of its own, whose peak is now.
PEAKS = """
import sys, numpy as np, torch
from inbatch.callbacks.throughput import peak_memory_gib
peaks = [peak_memory_gib(torch.device("cpu"))]
file = np.memmap(sys.argv[1], np.uint8, "r")
file.sum()
peaks.append(peak_memory_gib(torch.device("cpu")))
held = np.ones(1 << 28, np.uint8)
peaks.append(peak_memory_gib(torch.device("cpu")))
print(*peaks)
"""


def test_peak_memory_is_what_a_process_holds_besides_mapped_files(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    (tmp_path / "file").write_bytes(bytes(1 << 28))
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        check=True,
    )
    start, mapped, held = map(float, done.stdout.split())
    assert start > 0.1
    assert mapped - start < 0.1
    assert held - mapped > 0.15


def test_clock_leaves_pauses_out() -> None:
    now = 10.0
    clock = StepClock(lambda: now)
    now = 12.0
    assert clock.lap() == 2.0
    now = 13.0
    clock.pause()
    now = 20.0
    assert clock.resume() == 7.0
    now = 21.5
    assert clock.lap() == 2.5
    with pytest.raises(RuntimeError, match="without pause"):
        clock.resume()


def read(row: OpenRow) -> dict[str, float]:
    return row.read(world_size=1, device=torch.device("cpu"))


def test_a_row_is_the_mean_of_its_steps() -> None:
    row = OpenRow()
    assert read(row) == {}
    row.add(report(1.0, accuracy=0.5), ends_step=True)
    row.add(report(3.0, accuracy=1.0, spread=4.0), ends_step=True)
    means = {"loss": 2.0, "gradient_norm": 4.0, "accuracy": 0.75, "spread": 4.0}
    assert read(row) == read(row) == pytest.approx(means)


def test_a_step_is_the_mean_of_its_batches() -> None:
    row = OpenRow()
    for loss, ends_step in ((1.0, False), (3.0, True), (8.0, True)):
        row.add(report(loss), ends_step=ends_step)
    assert read(row)["loss"] == pytest.approx((2 + 8) / 2)


def test_each_source_has_its_loss_where_there_are_several() -> None:
    row = OpenRow()
    row.add(replace(report(1.0), source="a"), ends_step=True)
    assert "loss/a" not in read(row)
    row.add(replace(report(4.0), source="b"), ends_step=True)
    means = read(row)
    assert (means["loss"], means["loss/a"], means["loss/b"]) == (2.5, 1.0, 4.0)


def test_a_row_that_is_cut_in_two_is_equal_to_the_last_bit() -> None:
    losses = torch.rand(20, generator=torch.Generator().manual_seed(0)).tolist()
    whole, parts = OpenRow(), OpenRow()
    for number, loss in enumerate(losses):
        whole.add(report(loss), ends_step=True)
        parts.add(report(loss), ends_step=True)
        if number in (0, 6, 7):
            read(parts)
            parts = OpenRow.of_state(parts.state())
    assert read(whole) == read(parts)
