"""A folder of trials becomes a table, a link and plots."""

from __future__ import annotations

import csv
import sys
from io import StringIO
from pathlib import Path

import matplotlib.image
import pytest
from rich.console import Console

from helpers.launching import ROOT, run
from helpers.sweep_folder import write
from inbatch.errors import ConfigError
from inbatch.sweep.plots import scale
from inbatch.sweep.report import report
from inbatch.sweep.trials import best_trial, read_trials, varied


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    sweep = tmp_path / "sweep"
    for number, (rate, loss, value) in enumerate(
        [(1e-5, "mnrl", 0.5), (1e-4, "mnrl", 0.8), (1e-3, "cosent", 0.6)]
    ):
        write(sweep, number, value, optimizer__lr=rate, loss=loss, seed=42)
    write(sweep, 3, None, status="failed", error="OutOfMemoryError: all gone", optimizer__lr=1)
    write(sweep, 10, 0.7, status="pruned", optimizer__lr=2e-5, loss="mnrl", seed=42)
    return sweep


def _print(sweep: Path, *, terminal: bool = False) -> str:
    stream = StringIO()
    report(sweep, console=Console(file=stream, width=200, force_terminal=terminal, highlight=False))
    return stream.getvalue()


def test_table_has_every_trial(sweep: Path) -> None:
    _print(sweep)
    with (sweep / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3", "10"]
    assert rows[1]["value"] == "0.8"
    assert rows[1]["optimizer.lr"] == "0.0001"
    assert rows[3]["status"] == "failed"
    assert rows[3]["error"] == "OutOfMemoryError: all gone"


def test_terminal_shows_the_best_first_and_the_error(sweep: Path) -> None:
    lines = [line for line in _print(sweep).splitlines() if line.startswith("trial=")]
    assert [line.split()[0] for line in lines] == [f"trial={n}" for n in (1, 10, 2, 0, 3)]
    shown = _print(sweep, terminal=True)
    assert "trial 3 failed: OutOfMemoryError: all gone" in shown
    assert "data" not in shown.splitlines()[0]  # the same for all trials


@pytest.mark.parametrize("chosen", [False, True])
def test_trials_in_different_precisions_are_named(tmp_path: Path, chosen: bool) -> None:
    for number, name in enumerate(["bf16", "fp32", "bf16"]):
        parameters = {"precision": name} if chosen else {"seed": number}
        folder = write(tmp_path, number, 0.5, **parameters)
        (folder / "config.yaml").write_text(f"seed: 1\nprecision: {name}\nresume: auto\n")
    said = "trials were computed in different precisions (bf16: trials 0, 2; fp32: trials 1), "
    assert (said in _print(tmp_path)) is not chosen


def test_link_leads_to_the_best(sweep: Path) -> None:
    _print(sweep)
    assert (sweep / "best").resolve() == (sweep / "1").resolve()
    moved = sweep.rename(sweep.with_name("moved"))
    assert (moved / "best" / "trial.json").exists()
    write(moved, 11, 0.9, optimizer__lr=3e-4)
    _print(moved)
    assert (moved / "best").resolve() == (moved / "11").resolve()
    assert len(read_trials(moved)) == 6  # the link is no trial


def test_smaller_may_be_better(tmp_path: Path) -> None:
    for number, value in enumerate([0.3, 0.1, 0.2]):
        write(tmp_path, number, value, mode="min", seed=number)
    assert best_trial(read_trials(tmp_path)) == tmp_path / "1"


def test_plots_show_the_trials(sweep: Path) -> None:
    _print(sweep)
    for name in ("metric_by_parameter", "parallel_coordinates"):
        image = matplotlib.image.imread(sweep / "plots" / f"{name}.png")
        assert image[..., :3].std() > 0.05


def test_trials_without_values_are_reported_too(tmp_path: Path) -> None:
    write(tmp_path, 0, None, status="failed", error="no", seed=1)
    write(tmp_path, 1, None, status="running", seed=2)
    shown = _print(tmp_path)
    assert "trial 1 running: it has no result" in shown
    assert not (tmp_path / "best").exists()
    assert not (tmp_path / "plots").exists()


def test_folder_without_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no trials"):
        report(tmp_path)


def test_different_metrics_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path, 0, 0.5, metric="a")
    write(tmp_path, 1, 0.5, metric="b")
    with pytest.raises(ConfigError, match=r"a \(max\), b \(max\)"):
        report(tmp_path)


def test_script_reports_offline(sweep: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "sweep_report.py")]
    done = run([*script, str(sweep)], folder=tmp_path)
    assert done.code == 0
    assert "best: " in done.output
    done = run([*script, "nowhere"], folder=tmp_path)
    assert done.code == 1
    assert done.output == (
        "error: sweep='nowhere' holds no trials: give the folder of a --multirun\n"
    )


def test_varied_parameters(sweep: Path) -> None:
    assert varied(list(read_trials(sweep).values())) == ["optimizer.lr", "loss", "seed"]


def test_scale_of_numbers_and_texts() -> None:
    assert scale(["1e-5", "1e-3", "1e-4"]).places == pytest.approx([0.0, 1.0, 0.5])
    assert scale(["1", "2", "3"]).places == [0.0, 0.5, 1.0]
    assert scale(["b", "a", "null"]).places == [0.0, 0.5, 1.0]
    assert scale(["5", "5"]).places == [0.0, 0.0]
    assert scale(["null", "0.5"]).labels == ["null", "0.5"]
