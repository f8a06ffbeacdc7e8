"""Rows that a run writes: their steps, their means, and time without pauses."""

from __future__ import annotations

import time
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from helpers.watched_run import ROWS, Rows, WatchedModule, fit
from inbatch.callbacks.pauses import pause
from inbatch.callbacks.step_log import StepLog, num_computing_parameters

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Sleep(Callback):
    """Takes `seconds` after each batch, in a pause where `told`."""

    def __init__(self, seconds: float, *, told: bool) -> None:
        self._seconds, self._told = seconds, told

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if self._told:
            with pause(trainer, "evaluate"):
                time.sleep(self._seconds)
        else:
            time.sleep(self._seconds)


def test_rows() -> None:
    rows = Rows()
    fit(WatchedModule(total_steps=12), StepLog(every_steps=5), logger=rows)
    assert [step for step, _ in rows.rows] == [1, 5, 10, 12], "a short run has more than its end"
    step_1, first, second, third = (row for _, row in rows.rows)
    # batch t has the loss t, the accuracy t / 4 and the gradient norm 2 t
    assert step_1["train/loss"] == pytest.approx(1)
    assert first["train/loss"] == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert second["train/loss"] == pytest.approx((6 + 7 + 8 + 9 + 10) / 5)
    assert third["train/loss"] == pytest.approx((11 + 12) / 2)
    assert third["train/accuracy"] == pytest.approx(11.5 / 4)
    assert third["train/gradient_norm"] == pytest.approx(2 * 11.5)
    assert [row["epoch"] for _, row in rows.rows] == pytest.approx([1 / 6, 5 / 6, 10 / 6, 2])
    assert first["train/lr"] == 0.5
    assert first["perf/padding_share"] == pytest.approx(0.25)
    assert first["perf/peak_memory_gib"] > 0.01
    assert 0 < first["perf/mfu"] < 1e-3, "two parameters do not use a device"
    assert "perf/compiled_graphs" not in first


def test_compiled_graphs_are_counted() -> None:
    rows, module = Rows(), WatchedModule(total_steps=12, compiled_graphs=3)
    fit(module, StepLog(every_steps=12), logger=rows)
    assert [row["perf/compiled_graphs"] for _, row in rows.rows] == [3, 3]


def test_no_row_twice() -> None:
    rows = Rows()
    fit(WatchedModule(total_steps=12), StepLog(every_steps=6), logger=rows)
    assert [step for step, _ in rows.rows] == [1, 6, 12]


def test_accumulated_batches() -> None:
    rows = Rows()
    fit(WatchedModule(total_steps=6, accumulate=2), StepLog(every_steps=3), logger=rows)
    assert [(step, row["train/loss"]) for step, row in rows.rows] == [
        (1, 1.5),
        (3, 4.5),
        (6, 9.5),
    ]


@pytest.mark.parametrize("told", [True, False])
def test_pauses_do_not_count(told: bool) -> None:
    rows = Rows()
    fit(WatchedModule(total_steps=6), StepLog(), Sleep(0.1, told=told), logger=rows, epochs=1)
    samples_per_s = rows.rows[-1][1]["perf/samples_per_s"]
    assert (samples_per_s > 2 * ROWS / 0.1) == told


def test_model_flop_utilization_counts_no_embedding_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = "inbatch.callbacks.step_log.matmul_flop_per_s"
    monkeypatch.setattr(rate, lambda device, dtype: 1e6)
    module = WatchedModule(total_steps=6)
    assert num_computing_parameters(module) == 2
    rows = Rows()
    fit(module, StepLog(), logger=rows, epochs=1)
    row = rows.rows[-1][1]
    assert row["perf/mfu"] == pytest.approx(6 * 2 * row["perf/tokens_per_s"] / 1e6)
