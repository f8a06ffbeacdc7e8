"""An offline W&B run says what the run's own files say."""

from __future__ import annotations

import csv
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.distributed import run
from helpers.forked_command import train_command
from helpers.runs import TINY, compose_run, metrics, no_plots, write_triplets
from helpers.wandb_file import OfflineRun, read_runs
from inbatch.callbacks.wandb_run import WandbLogger, WandbRun, named
from inbatch.config.check import check_config
from inbatch.errors import ConfigError
from inbatch.run.train import train
from inbatch.sweep.trials import Trial, write_trial

pytestmark = pytest.mark.xdist_group("wandb")  # one run for all
OWN = {"_runtime", "_step", "_timestamp", "trainer/global_step", "epoch", "time_s", "step"}


def _overrides(folder: Path, steps: int) -> list[str]:
    return [
        f"data.train.triplets={write_triplets(folder / 'triplets.jsonl')}",
        f"output_dir={folder / 'run'}",
        "global_batch_size=8",
        "checkpoint.every_n_steps=1",
        f"trainer.max_steps={steps}",
        "evaluation=triplet",
        f"data.eval={write_triplets(folder / 'dev.jsonl', 20, seed=50)}",
        "evaluation.every_steps=2",
        "logger=wandb",
        "logger.wandb.tags=[tiny]",
        "name=tiny-run",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, and the same one going on to four."""
    folder = tmp_path_factory.mktemp("wandb")
    for steps in (2, 4):
        config = compose_run(*TINY, *_overrides(folder, steps))
        second = int(time.time())
        with redirect_stdout(StringIO()) as shown, pytest.MonkeyPatch.context() as patch:
            no_plots(patch)
            train(check_config(config))
        while int(time.time()) == second:  # W&B names the folder of an offline run by the second
            time.sleep(0.01)
        (folder / "shown.txt").write_text(shown.getvalue())
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[OfflineRun]:
    return read_runs(folder / "run")


def test_the_summary_names_the_folders_of_all_starts(folder: Path) -> None:
    lines = (folder / "shown.txt").read_text().splitlines()
    (shown,) = [line.removeprefix("wandb: ") for line in lines if line.startswith("wandb: ")]
    starts = sorted((folder / "run" / "wandb").glob("offline-run-*"))
    assert len(starts) == 2
    assert shown.split() == [str(start) for start in starts]


def _rows(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    numbers = [
        {k: v for k, v in row.items() if k not in OWN and not k.startswith("examples/")}
        | {"step": row["trainer/global_step"]}
        for row in history
    ]
    return [row for row in numbers if len(row) > 1]


def test_history_is_the_metrics_file(folder: Path, runs: list[OfflineRun]) -> None:
    written = [
        {k: v for k, v in row.items() if k not in OWN or k == "step"}
        for row in metrics(folder / "run")
    ]
    history = _rows([row for run in runs for row in run.history if "trainer/global_step" in row])
    assert len(history) == len(written) > 4
    for ours, theirs in zip(written, history, strict=True):
        assert theirs == pytest.approx(ours)
    logged = {name for row in history for name in row}
    assert {"train/alignment", "train/uniformity", "perf/time_share_data"} <= logged


def test_a_resumed_run_is_the_same_run(runs: list[OfflineRun]) -> None:
    first, second = runs
    assert first.id == second.id != ""
    assert (first.exit_code, second.exit_code) == (0, 0)


def test_what_the_run_is_called(runs: list[OfflineRun]) -> None:
    run = runs[0]
    assert (run.name, run.group, run.job_type, run.tags) == ("tiny-run", "", "train", ["tiny"])
    assert not any(name.startswith("model") for name in run.artifacts)


def test_config_and_summary(runs: list[OfflineRun]) -> None:
    config = runs[-1].config
    assert config["optimizer"]["lr"] == 1e-3
    assert config["global_batch_size"] == 8
    assert config["world_size"] == 1
    assert config["units"]["perf/tokens_per_s"]
    assert len(config["code"].get("commit", "0" * 40)) == 40
    summary = runs[-1].summary
    key = "eval/eval_cosine_accuracy"
    evaluated = [row[key] for run in runs for row in _rows(run.history) if key in row]
    assert summary["best/value"] == max(evaluated[1:])  # the first is of the untrained model
    metric = runs[-1].metrics[key]
    assert metric.summary.max
    assert metric.step_metric == "trainer/global_step"


def test_every_evaluation_has_its_examples(folder: Path, runs: list[OfflineRun]) -> None:
    tables = [row for run in runs for row in run.history if "examples/eval._type" in row]
    assert [row["trainer/global_step"] for row in tables] == [0, 2, 4]
    assert tables[0]["examples/eval._type"] == "table-file"
    assert tables[0]["examples/eval.nrows"] == 20
    with (folder / "run" / "examples" / "eval.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    right = sum(row["right"] == "True" for row in rows) / 20
    last = [r for r in metrics(folder / "run") if "eval/eval_cosine_accuracy" in r][-1]
    assert right == pytest.approx(last["eval/eval_cosine_accuracy"])


def test_a_trial_of_a_sweep_is_in_its_group(tmp_path: Path) -> None:
    node = {"_target_": "lightning.pytorch.loggers.WandbLogger", "name": None}
    write_trial(Trial(number=3, overrides=()), tmp_path / "today" / "3")
    done = named(node, run_name="lr", output_dir=tmp_path / "today" / "3")
    assert (done["name"], done["group"]) == ("lr/today/3", "lr/today")
    own = {**node, "name": "mine", "group": "ours"}
    done = named(own, run_name="lr", output_dir=tmp_path / "today" / "3")
    assert (done["name"], done["group"]) == ("mine", "ours")
    other = {"_target_": "lightning.pytorch.loggers.CSVLogger"}
    assert named(other, run_name="lr", output_dir=tmp_path) == other


def test_an_offline_run_sends_no_model() -> None:
    node = {"_target_": "lightning.pytorch.loggers.WandbLogger", "offline": True, "log_model": True}
    with pytest.raises(ConfigError, match="log_model"):
        named(node, run_name="x", output_dir=Path("nowhere"))


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"WANDB_API_KEY": ""}, "No API key configured"),
        ({"WANDB_API_KEY": "0" * 40}, "Failed to authenticate with http://127.0.0.1:9"),
    ],
)
def test_a_run_that_cannot_be_sent_ends_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    options = [*_overrides(tmp_path, 2), "logger.wandb.offline=false"]
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "NETRC": str(tmp_path / "none")}
    for name, value in {**nowhere, **variables, "WANDB_MODE": "online"}.items():
        monkeypatch.setenv(name, value)
    [left] = run(train_command, 1, tmp_path, *options)
    assert left.code == 1, left.said
    [line] = left.said.splitlines()
    assert line.startswith(f"error: logger.wandb.offline=false cannot start a run at W&B ({reason}")
    assert "logger.wandb.offline=true" in line


def test_a_failure_starts_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would hide the failure behind its own."""
    monkeypatch.setattr("wandb.init", lambda **options: pytest.fail("a second run"))
    trainer: Any = SimpleNamespace(
        is_global_zero=True, loggers=[WandbLogger(save_dir=tmp_path, offline=True)]
    )
    WandbRun({}, metric=None, mode="max").on_exception(trainer, trainer, RuntimeError())
