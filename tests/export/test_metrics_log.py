"""Reading `metrics.jsonl`."""

from __future__ import annotations

from pathlib import Path

import pytest

from inbatch.errors import ConfigError
from inbatch.export.metrics_log import by_step, names, read_metrics, series

ROW = '{"step": 1, "epoch": 0.1, "time_s": 1.5, "train/loss": 0.5}'


@pytest.mark.parametrize(
    "torn", ["\n", '\n{"step": 2, "ep', '\n{"step"', "\n2", '\n{"step": 2, "x": "é', "\n" + ROW]
)
def test_torn_last_line_is_left_out(torn: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes((ROW + torn).encode()[: None if not torn.endswith("é") else -1])
    assert read_metrics(path) == [{"step": 1, "epoch": 0.1, "time_s": 1.5, "train/loss": 0.5}]


def test_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{ROW}\n{{"step": 2, \n{ROW}\n')
    with pytest.raises(ConfigError, match="line 2"):
        read_metrics(path)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        read_metrics(tmp_path / "none.jsonl")


def test_rows_of_a_step_are_merged_in_order_of_steps() -> None:
    rows = [
        {"step": 2, "train/loss": 0.5, "epoch": 0.2},
        {"step": 1, "train/loss": 0.9},
        {"step": 2, "eval/x": 0.7, "train/loss": 0.4},
    ]
    assert by_step(rows) == [
        {"step": 1, "train/loss": 0.9},
        {"step": 2, "train/loss": 0.4, "epoch": 0.2, "eval/x": 0.7},
    ]


def test_series_hold_finite_values_alone() -> None:
    rows = [
        {"step": 3, "a": 0.5},
        {"step": 1, "a": 1},
        {"step": 2, "a": None},
        {"step": 4, "a": float("nan"), "ab": float("inf"), "b": 1.0},
        {"step": 3, "a": 0.25},
    ]
    assert series(rows, "a") == ([1, 3], [1.0, 0.25])
    assert series(rows, "none") == ([], [])
    assert names(rows, "a") == ["a"]
    assert names(rows, "") == ["step", "a", "b"]
