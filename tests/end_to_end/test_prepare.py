"""From files to a prepared folder, and from there to the same run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from helpers.forked_process import ForkedProcess
from helpers.runs import TINY, compose_run, metrics, run_train, weights, write_triplets
from inbatch.cli.prepare import prepare_sources, read_config, read_options
from inbatch.data.sources.load import load_sources
from inbatch.errors import ConfigError

RUN = ("global_batch_size=8", "trainer.max_epochs=2", "++encoder.prompts={query: 'offer '}")
LOSS = ("loss=multiple_negatives_ranking", "sampler=proportional")


def run_prepare(*overrides: str) -> Path:
    """Prepare in this process."""
    return prepare_sources(*read_config(compose_run(*TINY, *overrides)))


def data(folder: Path) -> list[str]:
    """Two sources, one with a key."""
    first = write_triplets(folder / "first.jsonl", 40)
    second = write_triplets(folder / "second.jsonl", 24, seed=9)
    rows = [json.loads(line) for line in second.read_text().splitlines()]
    lines = [json.dumps({**row, "sku": f"s{i // 3}"}) for i, row in enumerate(rows)]
    second.write_text("\n".join(lines) + "\n")
    return [
        "data=files",
        f"data.train={{first: {{path: {first}}}, second: {{path: {second}, columns: {{key: sku}}}}}}",
        *RUN,
    ]


@pytest.mark.parametrize("tokenize", [False, True])
def test_a_run_on_prepared_data_is_bit_identical(tmp_path: Path, tokenize: bool) -> None:
    raw, folder = data(tmp_path), tmp_path / "prepared"
    keys = [f"++prepare.{key}={value}" for key, value in (("output", folder), ("shard_rows", 10))]
    run_prepare(*raw, *keys, f"++prepare.tokenize={tokenize}")
    stored = [source.tokens is not None for source in load_sources(str(folder))]
    assert stored == [tokenize, tokenize]
    prepared = ["data=files", f"data.train={folder}", *RUN, "data.loader.num_workers=1"]
    runs = [
        run_train(*options, *LOSS, f"output_dir={tmp_path / name}")
        for name, options in (("raw", raw), ("again", prepared))
    ]
    losses = [[row["train/loss"] for row in metrics(run) if "train/loss" in row] for run in runs]
    assert len(losses[0]) == 16
    assert losses[0] == losses[1]
    for name, tensor in weights(runs[0]).items():
        assert torch.equal(tensor, weights(runs[1])[name]), name
    # The plan is the same, so a run may move from one to the other.
    moved = ["trainer.max_epochs=3", f"resume={runs[0] / 'checkpoints' / 'last.ckpt'}"]
    rows = metrics(run_train(*prepared, *LOSS, *moved, f"output_dir={tmp_path / 'moved'}"))
    assert [row["step"] for row in rows if "train/loss" in row][-1] == 24
    if tokenize:
        with pytest.raises(
            ConfigError, match=r"data\.train\.first\.path holds tokens .* max_length="
        ):
            run_train(
                *prepared, *LOSS, "++encoder.max_length=9", f"output_dir={tmp_path / 'other'}"
            )


def test_a_killed_command_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_triplets(tmp_path / "triplets.jsonl", 600)
    folder, shards = tmp_path / "prepared", tmp_path / "prepared" / "train"
    options = [f"data.train={path}", f"data.cache_dir={tmp_path / 'cache'}"]
    options += ["++prepare.shard_rows=5", "++prepare.tokenize=true"]
    output = f"++prepare.output={folder}"
    killed = ForkedProcess(run_prepare, *options, output, "++prepare.workers=2")
    while killed.poll() is None and len(list(shards.glob("shard-*"))) < 20:
        time.sleep(0.01)
    killed.kill_session()
    kept = {shard: shard.stat().st_ino for shard in shards.glob("shard-*")}
    assert not (folder / "manifest.json").exists(), "killed too late for this test to mean anything"
    capsys.readouterr()
    run_prepare(*options, output)
    assert f"prepare  {5 * len(kept):,} of 600 rows are there already" in capsys.readouterr().out
    assert {shard: shard.stat().st_ino for shard in kept} == kept
    [source], [raw] = load_sources(str(folder)), load_sources(str(path))
    assert source.num_rows == 600
    assert (source.text_hashes() == raw.text_hashes()).all()
    alone = run_prepare(*options, f"++prepare.output={tmp_path / 'alone'}") / "train"
    for file in alone.rglob("*"):  # as one process writes it, tokens included
        same = file.relative_to(alone)
        assert file.is_dir() or file.read_bytes() == (shards / same).read_bytes(), same


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "prepare.output has no value"),
        (
            {"output": "x", "worker": 2},
            "prepare.worker is not a valid key of .*: did you mean 'workers'",
        ),
        ({"output": "x", "workers": 0}, "prepare.workers=0 is too small"),
        ({"output": "x", "tokenize": "no"}, "prepare.tokenize='no' is not true or false"),
        ({"output": "s3://bucket/x"}, "prepare.output='s3://bucket/x' is not on this machine"),
    ],
)
def test_mistakes(values: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        read_options(values)


def test_a_local_url_is_a_folder(tmp_path: Path) -> None:
    assert read_options({"output": f"file://{tmp_path}/out"}).output == f"{tmp_path}/out"
