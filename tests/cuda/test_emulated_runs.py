"""Whole runs on emulated CUDA devices: train, resume, evaluate, export, run out of memory, two ranks."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

from helpers.emulated_cuda.cap import Cap
from helpers.emulated_cuda.process import group, on_gpu, on_gpus
from helpers.keystone import quiet
from helpers.runs import TINY, metrics, run_train, run_with, weights, write_triplets
from inbatch.callbacks.progress import Progress
from inbatch.cli.main import main

pytestmark = group

# Runs that differ by rounding alone end alike.
ALIKE = (
    "+encoder.config.hidden_dropout_prob=0",
    "+encoder.config.attention_probs_dropout_prob=0",
    "optimizer.eps=1e-4",
)


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    rows = write_triplets(tmp_path / "triplets.jsonl", 48)
    write_triplets(tmp_path / "dev.jsonl", 24, seed=50)
    return [
        f"data.train={rows}",
        *("trainer.accelerator=cuda", "trainer.max_epochs=-1", "global_batch_size=12"),
    ]


def command(*line: str) -> None:
    """Run a command as from a shell, without starting another process."""
    sys.argv = ["inbatch", *line]
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


def assert_alike(one: Path, other: Path) -> None:
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(other)[name], tensor, rtol=1e-3, atol=2e-5)


def life_of_a_run(folder: Path, guide: Path, precision: str, options: list[str]) -> None:
    quiet()
    options = [
        *options,
        *("loss=cached_gist", "gradcache.chunk_tokens=128", f"precision={precision}"),
        *(f"guide.model={guide}", f"guide.store_dir={folder / 'guide'}"),
        *(f"data.eval={folder / 'dev.jsonl'}", "evaluation.every_steps=2"),
        "checkpoint.every_n_steps=1",
    ]
    whole, parts = folder / "whole", folder / "parts"
    command("train", *TINY, *options, f"output_dir={whole}", "trainer.max_steps=6")
    for steps in (3, 6):  # stopped in the middle of an epoch
        run_train(*options, f"output_dir={parts}", f"trainer.max_steps={steps}")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name
    rows = [[row for row in metrics(each) if "train/loss" in row] for each in (whole, parts)]
    assert [row["train/loss"] for row in rows[0]] == [row["train/loss"] for row in rows[1]]
    assert 0 < rows[0][-1]["perf/peak_memory_gib"] < 1  # the device's, not this process's
    assert rows[0][-1]["train/filtered_share"] > 0


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.exhaustive)])
def test_life_of_a_run(tmp_path: Path, tiny_bert: Path, options: list[str], precision: str) -> None:
    """A stored guide is filled; trained, evaluated, exported; the same bits after a second start."""
    on_gpu(life_of_a_run, tmp_path, tiny_bert, precision, options)


def as_on_the_cpu(folder: Path, options: list[str]) -> None:
    quiet()
    options = [*options, *ALIKE, "trainer.max_steps=4", f"data.eval={folder / 'dev.jsonl'}"]
    found = []
    for device in ("cpu", "cuda"):
        run = folder / device
        run_train(*options, f"trainer.accelerator={device}", f"output_dir={run}")
        command(
            *("evaluate", f"encoder.model={folder / 'cpu' / 'model'}", f"device={device}"),
            *(f"data.eval={folder / 'dev.jsonl'}", f"output_dir={folder / device / 'evaluated'}"),
            *("evaluation=retrieval", f"evaluation.evaluators.eval.device={device}"),
        )
        found.append(json.loads((run / "evaluated" / "metrics.json").read_text())["metrics"])
    assert found[1] == pytest.approx(found[0], abs=1e-6)
    assert_alike(folder / "cpu", folder / "cuda")


def test_a_run_and_an_evaluation_as_on_the_cpu(tmp_path: Path, options: list[str]) -> None:
    on_gpu(as_on_the_cpu, tmp_path, options)


def runs_out(folder: Path, options: list[str]) -> None:
    quiet()
    options = [*options, *ALIKE, "gradcache.chunk_tokens=128", "gradcache.keep_gib=null"]
    options += ["global_batch_size=24", "trainer.max_steps=4"]
    free = Cap(None)
    run_with(free, None, *options, f"output_dir={folder / 'free'}")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "print", lambda bar, line: said.append(line))
        run_with(Cap(0.6 * free.taken), None, *options, f"output_dir={folder / 'capped'}")
    assert any("out of memory" in line for line in said)
    assert_alike(folder / "free", folder / "capped")


def test_a_run_that_runs_out_of_memory_goes_on_with_less(
    tmp_path: Path, options: list[str]
) -> None:
    on_gpu(runs_out, tmp_path, options)


def on_own_device(rank: int, world_size: int, options: list[str]) -> int:
    """Train; bytes that this rank has ever held on the device of the other one."""
    quiet()
    run_train(*options)
    assert torch.cuda.max_memory_allocated(rank) > 0
    return torch.cuda.max_memory_allocated(1 - rank)


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("ddp", ["precision=fp32", "gather=ring"]),
        pytest.param(
            "ddp",
            ["precision=bf16", "loss.mask_duplicates=true"],
            marks=pytest.mark.exhaustive,
        ),
        ("fsdp", ["precision=fp32"]),
    ],
)
def test_two_ranks_end_as_one(
    tmp_path: Path, options: list[str], strategy: str, more: list[str]
) -> None:
    options = [*options, *ALIKE, *more, "trainer.max_steps=4", "gradcache.chunk_tokens=128"]
    options += ["data.loader.num_workers=0", f"data.eval={tmp_path / 'dev.jsonl'}"]
    one, several = ([*options, f"output_dir={tmp_path / name}"] for name in ("one", "several"))
    on_gpu(run_train, *one)
    elsewhere = on_gpus(on_own_device, 2, [*several, f"strategy={strategy}", "trainer.devices=2"])
    assert elsewhere == [0, 0]
    loss, accuracy = (
        [
            [row[key] for row in metrics(tmp_path / name) if key in row]
            for name in ("one", "several")
        ]
        for key in ("train/loss", "eval/eval_cosine_accuracy")
    )
    assert len(accuracy[0]) == 2
    if "precision=fp32" in more:
        assert_alike(tmp_path / "one", tmp_path / "several")
        assert accuracy[1] == pytest.approx(accuracy[0], abs=1e-6)
    else:  # chunks are others, and so is the rounding
        assert loss[1] == pytest.approx(loss[0], rel=0.02)


def one_runs_out(rank: int, world_size: int, folder: Path, options: list[str]) -> str:
    """Train with enough memory, and with less on rank 1; what is said then."""
    quiet()
    free = Cap(None)
    run_with(free, None, *options, f"output_dir={folder / 'free'}")
    with redirect_stdout(StringIO()) as said:
        capped = Cap(0.4 * free.taken if rank == 1 else None)
        run_with(capped, None, *options, f"output_dir={folder / 'capped'}")
    return said.getvalue()


def test_ranks_in_shards_go_on_with_less_where_one_runs_out_of_memory(
    tmp_path: Path, options: list[str]
) -> None:
    options = [*options, *ALIKE, "strategy=fsdp", "trainer.devices=2", "trainer.max_steps=4"]
    options += ["global_batch_size=24", "gradcache.chunk_tokens=128", "gradcache.keep_gib=null"]
    _, said = on_gpus(one_runs_out, 2, tmp_path, [*options, "precision=fp32"])
    assert "out of memory on rank 1 in " in said
    assert_alike(tmp_path / "free", tmp_path / "capped")
