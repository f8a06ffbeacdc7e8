"""metrics.jsonl: each row on disk at once, torn lines, resumed runs, and the csv made from it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from helpers.watched_run import WatchedModule, fit
from inbatch.callbacks.metrics_file import MetricsFile
from inbatch.callbacks.step_log import StepLog
from inbatch.errors import ConfigError
from inbatch.export.metrics_log import read_metrics


def in_folder(folder: Path) -> MetricsFile:
    return MetricsFile(folder / "metrics.jsonl", csv_path=folder / "metrics.csv")


def write(folder: Path, steps: range) -> None:
    log = in_folder(folder)
    for step in steps:
        log.log_metrics({"epoch": step / 10, "train/loss": 1.0 / step}, step=step)


def steps_of(folder: Path) -> list[int]:
    return [row["step"] for row in read_metrics(folder / "metrics.jsonl")]


def test_each_row_is_on_disk_at_once(tmp_path: Path) -> None:
    log = in_folder(tmp_path / "new" / "folder")
    log.log_metrics({"epoch": 0.5, "train/loss": torch.tensor(2.0), "num": np.int64(3)}, step=7)
    text = log.path.read_text()
    assert text.endswith("\n")
    row = json.loads(text)
    assert list(row) == ["step", "epoch", "time_s", "train/loss", "num"]
    assert 0.0 <= row.pop("time_s") < 5.0
    assert row == {"step": 7, "epoch": 0.5, "train/loss": 2.0, "num": 3}


def test_a_row_without_epoch_has_the_last_one(tmp_path: Path) -> None:
    log = in_folder(tmp_path)
    log.log_metrics({"eval/sts": 0.1}, step=0)
    log.log_metrics({"epoch": 0.5, "train/loss": 1.0}, step=10)
    log.log_metrics({"eval/sts": 0.3}, step=10)
    assert [row["epoch"] for row in read_metrics(log.path)] == [0.0, 0.5, 0.5]


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    log = in_folder(tmp_path)
    log.log_metrics({"train/loss": float("nan"), "train/gradient_norm": float("inf")}, step=1)
    row = json.loads(log.path.read_text(), parse_constant=pytest.fail)
    assert (row["train/loss"], row["train/gradient_norm"]) == (None, None)


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    log = in_folder(tmp_path)
    with pytest.raises(TypeError, match="note is a str"):
        log.log_metrics({"note": "good"}, step=1)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="step"):
        log.log_metrics({"train/loss": 1.0})
    assert not log.path.exists()


def test_resume_doubles_no_row(tmp_path: Path) -> None:
    write(tmp_path, range(1, 9))  # killed after step 8; the last checkpoint is of step 5
    log = in_folder(tmp_path)
    log.rewind(5)
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5]
    for step in range(6, 11):
        log.log_metrics({"train/loss": 9.0}, step=step)
    assert steps_of(tmp_path) == list(range(1, 11))
    assert read_metrics(log.path)[5]["epoch"] == 0.5  # that of the last row kept


def test_time_goes_on(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 0.0, "time_s": 3600.5}\n')
    log = in_folder(tmp_path)
    log.log_metrics({}, step=2)
    assert 3600.5 <= read_metrics(log.path)[-1]["time_s"] < 3605.0


@pytest.mark.parametrize("torn", ['{"step": 4, "epo', '{"step": 4, "epoch": 0.4, "time_s": 1.0}'])
@pytest.mark.parametrize("rewind", [True, False])
def test_torn_last_line_is_left_out(tmp_path: Path, torn: str, rewind: bool) -> None:
    write(tmp_path, range(1, 4))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert steps_of(tmp_path) == [1, 2, 3]
    log = in_folder(tmp_path)
    if rewind:
        log.rewind(3)
    log.log_metrics({"train/loss": 1.0}, step=4)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [1, 2, 3, 4]


def test_torn_inside_a_character(tmp_path: Path) -> None:
    write(tmp_path, range(1, 3))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write('{"step": 3, "épo'.encode()[:-2])
    assert steps_of(tmp_path) == [1, 2]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:9], lines[2], ""]))
    with pytest.raises(ConfigError, match=r"metrics\.jsonl.* has no row of metrics at line 2"):
        in_folder(tmp_path).rewind(9)
    assert len(path.read_text().splitlines()) == 3


def test_rewind_of_everything_and_of_no_file(tmp_path: Path) -> None:
    in_folder(tmp_path).rewind(5)
    assert not list(tmp_path.iterdir())
    write(tmp_path, range(1, 4))
    in_folder(tmp_path).rewind(-1)
    assert steps_of(tmp_path) == []


def test_csv_has_the_union_of_columns(tmp_path: Path) -> None:
    log = in_folder(tmp_path)
    log.finalize("success")
    assert not list(tmp_path.iterdir())
    log.log_metrics({"epoch": 0.1, "train/loss": 2.5}, step=1)
    log.log_metrics({"eval/sts": 0.5}, step=1)
    for status in ("failed", "success"):
        log.finalize(status)
        with (tmp_path / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["step", "epoch", "time_s", "train/loss", "eval/sts"]
        assert [(row["train/loss"], row["eval/sts"]) for row in rows] == [("2.5", ""), ("", "0.5")]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "metrics.csv"}


def test_only_rank_zero_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    log = in_folder(tmp_path)
    log.log_metrics({"train/loss": 1.0}, step=1)
    log.rewind(0)
    log.finalize("success")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_in_a_trainer(tmp_path: Path) -> None:
    """Lightning's own calls (hyperparameters, graph, save, finalize) add nothing to the folder."""
    log = in_folder(tmp_path)
    trainer = fit(WatchedModule(total_steps=12), StepLog(every_steps=4), logger=log)
    log.log_hyperparams({"lr": 0.1})
    assert trainer.log_dir == str(tmp_path)
    assert steps_of(tmp_path) == [1, 4, 8, 12]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "metrics.csv"}
