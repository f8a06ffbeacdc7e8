"""Arithmetic of the throughput meter, on steps whose numbers are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.watched_run import COMPUTED, ROWS, TOKENS, report
from inbatch.callbacks.throughput import (
    WINDOW_STEPS,
    StepClock,
    StepCost,
    ThroughputMeter,
    throughput,
)
from inbatch.step.report import mean_scalars


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


def test_mean_scalars() -> None:
    reports = [report(1.0, accuracy=0.5), report(3.0, accuracy=1.0, spread=4.0)]
    assert mean_scalars(reports) == pytest.approx(
        {"loss": 2.0, "gradient_norm": 4.0, "accuracy": 0.75, "spread": 4.0}
    )
    assert mean_scalars([]) == {}
