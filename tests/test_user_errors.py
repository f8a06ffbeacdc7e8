"""Typical mistakes, from the command line to the end: one line on standard error, exit code 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.runs import TINY, run_train, write_triplets
from inbatch.cli.hydra_app import split_options
from inbatch.cli.train import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run is started: its files, and nothing that a launcher has set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # `main` sets it; to be as before afterwards
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    write_triplets(tmp_path / "triplets.jsonl", 24)
    rows = [
        {"query": f"red phone {i}", "positive": f"phone {i}", "label": "high"} for i in range(9)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


TRIPLETS = ["data.train.triplets=triplets.jsonl", "global_batch_size=8"]
PAIRS = ["data.train.pairs=pairs.jsonl", "global_batch_size=8"]
MATCH = "data.train.pairs.columns={query: query, positive: positive}"

MISTAKES: dict[str, tuple[list[str], str]] = {
    "file": (
        [*TRIPLETS, "data.train.triplets=triplet.jsonl"],
        "data.train.triplets.path='triplet.jsonl' matches no file: did you mean",
    ),
    "column": (
        [*TRIPLETS, "data.train.triplets.columns.positive=positiv"],
        "names 'positiv', which the data does not have: did you mean 'positive'",
    ),
    "labels": (
        [*PAIRS, MATCH, "loss=cosent"],
        "loss='CoSENT' needs labels, and source 'pairs' has none",
    ),
    "labels that are texts": (
        PAIRS,
        "the label column 'label', whose string values in pairs.jsonl are not",
    ),
    "guide": ([*TRIPLETS, "loss=gist"], "loss='GIST' needs a guide: set guide.model=NAME_OR_PATH"),
    "too few columns": (
        [*PAIRS, MATCH, "loss=triplet"],
        "loss='Triplet' takes 3 text columns, and source",
    ),
    "key": ([*TRIPLETS, "global_batchsize=8"], "did you mean 'global_batch_size'?"),
    "key of a group": (
        [*TRIPLETS, "loss.temprature=1"],
        "loss.temprature is not a valid key of loss=multiple_negatives_ranking: did you mean 'temperature'?",
    ),
    "key of other choices": (
        [*TRIPLETS, "sampler.mixed=true"],
        "sampler.mixed is not a valid key of sampler=no_duplicates: set sampler= one of "
        "proportional, round_robin, temperature, weighted, or use one of block_rows",
    ),
    "choice": (
        [*TRIPLETS, "loss=cached_gits"],
        "loss=cached_gits is not a file of that group: did you mean",
    ),
    "experiment": (
        ["experiment=dmo"],
        "experiment=dmo is not a file of that group: did you mean 'demo'?",
    ),
    "choice in a sweep": (
        ["seed=1,2", "-m", "loss=cached_gits"],
        "loss=cached_gits is not a file of that group",
    ),
    "syntax": ([*TRIPLETS, "my key=1"], "'my key=1' cannot be read"),
    "syntax of a list": ([*TRIPLETS, "optimizer.betas=[1"], "optimizer.betas='[1' is not a list"),
    "no value": ([*TRIPLETS, "loss"], "'loss' is not key=value: set loss=..., or"),
    "a model": (
        ["some/model", *TRIPLETS],
        "'some/model' is not key=value: to name a model, set encoder.model=some/model",
    ),
    "a file": (
        ["triplets.jsonl"],
        "'triplets.jsonl' is not key=value: to name a file, set data.train=triplets.jsonl or",
    ),
    "missing value": (["encoder=minilm"], "data.train is not set"),
    "batch size": (
        [*TRIPLETS, "trainer.devices=3"],
        "global_batch_size=8 does not divide over 3 ranks: set 6 or 9",
    ),
    "resume": ([*TRIPLETS, "resume=old.ckpt"], "resume='old.ckpt' does not exist"),
    "encoder": (
        [*TRIPLETS, "encoder=minilm", "encoder.model=./nowhere"],
        "encoder.model='./nowhere' is not a directory",
    ),
    "two encoders": ([*TRIPLETS, "encoder.model=x"], "give one of them"),
    "evaluator file": (
        [*TRIPLETS, "evaluation=triplet", "data.eval=dev.jsonl"],
        "evaluation.evaluators.eval.path='dev.jsonl' matches no file",
    ),
    "metric": (
        [
            *TRIPLETS,
            "evaluation=triplet",
            "data.eval=triplets.jsonl",
            "evaluation.best_metric=eval_accuracy",
        ],
        "evaluation.best_metric='eval_accuracy' is not a metric of the evaluators: "
        "did you mean 'eval_cosine_accuracy'?",
    ),
    "gpu": ([*TRIPLETS, "trainer.accelerator=gpu"], "needs a GPU, and torch finds none"),
    "learning rate": ([*TRIPLETS, "optimizer.lr=-1"], "optimizer.lr=-1 is out of range"),
    "optimizer": (
        [*TRIPLETS, "optimizer=sgd", "optimizer.momentum=-1"],
        "optimizer does not fit SGD (Invalid momentum value: -1): correct the key",
    ),
    "loss": (
        [*TRIPLETS, "loss.temperature=-1"],
        "loss.temperature=-1 is not a finite number above 0: set one",
    ),
    "inner loss": (
        [*TRIPLETS, "loss=matryoshka", "loss.loss.temperature=-1"],
        "loss.loss.temperature=-1 is not a finite number above 0: set one",
    ),
    "schedule": (
        [*TRIPLETS, "schedule=cosine", "schedule.warmup_ratio=2"],
        "schedule.warmup_ratio=2",
    ),
    "max length": ([*TRIPLETS, "encoder.max_length=1000"], "encoder.max_length=1000 is above the"),
    "output is a file": (
        [*TRIPLETS, "output_dir=triplets.jsonl"],
        "output_dir='triplets.jsonl' cannot be created (File exists): set a folder",
    ),
    "remote output": (
        [*TRIPLETS, "output_dir=s3://bucket/run"],
        "output_dir='s3://bucket/run' is not a folder of this machine",
    ),
    "remote store": (
        [*TRIPLETS, "guide.store_dir=s3://bucket/run"],
        "guide.store_dir='s3://bucket/run' is not a folder of this machine",
    ),
    "fp16": ([*TRIPLETS, "precision=fp16"], "precision='fp16' needs a GPU"),
    "config dir": (
        ["--config-dir=conf", "experiment=broken"],
        "mapping values are not allowed here",
    ),
    "config dir among overrides": (
        ["encoder=tiny", "--config-dir", "conf", "experiment=broken"],
        "mapping values are not allowed here",
    ),
}


def ends(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    """What standard error holds after a run that must end with exit code 1."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    return capfd.readouterr().err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line(
    mistake: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if mistake in ("gpu", "fp16") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "broken.yaml").write_text("loss: a: b\n")
    overrides, message = MISTAKES[mistake]
    bare = mistake in ("encoder", "experiment") or "sweep" in mistake or "config dir" in mistake
    tiny = [] if bare else list(TINY)
    error = ends([*tiny, *overrides], monkeypatch, capfd)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_devices_that_differ_from_the_launchers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x",
        "RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
        "WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    error = ends([*TINY, *TRIPLETS, "trainer.devices=4"], monkeypatch, capfd)
    assert (
        "trainer.devices=4 and trainer.num_nodes=1 do not match the launcher (2 processes" in error
    )
    assert error.count("\n") == 1


def test_the_log_of_another_run_stays_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = run_train(*TRIPLETS, "output_dir=run", "trainer.max_steps=1") / "train.log"
    log.write_text("what was shown\n")
    capfd.readouterr()
    error = ends([*TINY, *TRIPLETS, "output_dir=run", "seed=7"], monkeypatch, capfd)
    assert "holds another run (seed was 42 and is 7)" in error
    assert log.read_text() == "what was shown\n"
    ends([*TINY, "data.train.triplets=x.csv", "output_dir=mine"], monkeypatch, capfd)
    assert "error: data.train.triplets.path='x.csv'" in (folder / "mine" / "train.log").read_text()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a=1 --config-dir x b=2 -m", ("a=1 b=2", "--config-dir x -m")),
        ("-cn x ~a +b=1", ("~a +b=1", "-cn x")),
        ("--config-d x a=1 --config-name=y", ("a=1", "--config-d x --config-name=y")),
        ("--info a=1", ("a=1", "--info")),
        ("--info plugins a=1 -c job some/model", ("a=1 some/model", "--info plugins -c job")),
    ],
)
def test_options_may_stand_anywhere(line: str, expected: tuple[str, str]) -> None:
    assert tuple(map(" ".join, split_options(line.split()))) == expected


def test_the_script_itself(folder: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        *TRIPLETS,
        "encoder=tiny",
        "optimiser=adam",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: optimiser is not a valid key of the configuration: did you mean 'optimizer'?\n"
    )
    assert not (folder / "outputs" / "run" / "config.yaml").exists()
