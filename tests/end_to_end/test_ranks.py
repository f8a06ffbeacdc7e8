"""Whole runs on several ranks: as one process, and on from each other's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import metrics, run_train, train_as_rank, weights, write_triplets

group = pytest.mark.xdist_group("ranks_end_as_one")  # these compare with one run

NO_DROPOUT = (
    "+encoder.config.hidden_dropout_prob=0",
    "+encoder.config.attention_probs_dropout_prob=0",
)


def _options(folder: Path) -> list[str]:
    return [
        f"data.train.triplets={write_triplets(folder / 'triplets.jsonl')}",
        "global_batch_size=12",  # divides over three ranks
        "gradcache=rows",
        "gradcache.chunk_size=5",  # the last chunk of a rank is a smaller one
        *NO_DROPOUT,
    ]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of three steps that is evaluated."""
    folder = tmp_path_factory.mktemp("data")
    dev = write_triplets(folder / "dev.jsonl", 21, seed=50)
    evaluated = ["evaluation=triplet", f"data.eval={dev}"]
    return [*_options(folder), *evaluated, "trainer.max_steps=3", "optimizer=sgd"]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, options: list[str]) -> Path:
    """That run on one rank."""
    return run_train(*options, f"output_dir={tmp_path_factory.mktemp('one') / 'run'}")


@group
@pytest.mark.parametrize(
    ("strategy", "world_size"),
    [
        ("ddp", 3),
        ("fsdp", 2),
        ("deepspeed_stage_2", 2),
        pytest.param("deepspeed_stage_2_offload", 2, marks=pytest.mark.exhaustive),
        pytest.param("deepspeed_stage_3", 2, marks=pytest.mark.exhaustive),
    ],
)
def test_ranks_end_as_one(
    tmp_path: Path, options: list[str], one: Path, strategy: str, world_size: int
) -> None:
    several = tmp_path / "several"
    run(train_as_rank, world_size, [*options, f"strategy={strategy}", f"output_dir={several}"])
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(several)[name], tensor, rtol=1e-4, atol=1e-6)
    for a, b in zip(metrics(one), metrics(several), strict=True):
        assert a["step"] == b["step"]
        for key in ("train/loss", "eval/eval_cosine_accuracy"):
            assert b.get(key) == pytest.approx(a.get(key), abs=1e-5)
    rates = [next(r for r in metrics(path) if r["step"] == 3) for path in (one, several)]
    tokens_a_row = [row["perf/tokens_per_s"] / row["perf/samples_per_s"] for row in rates]
    assert tokens_a_row[1] == pytest.approx(tokens_a_row[0], rel=0.25), "of all ranks, both"
    reports = [json.loads((path / "data_report.json").read_text()) for path in (one, several)]
    assert reports[0] == reports[1]
    assert (several / "model" / "README.md").exists()


def _losses(path: Path) -> list[float]:
    return [row["train/loss"] for row in metrics(path) if "train/loss" in row]


@pytest.mark.exhaustive
def test_loss_curve_of_thirty_steps_around_a_ring(tmp_path: Path) -> None:
    options = [*_options(tmp_path), "trainer.max_epochs=10", "trainer.max_steps=30"]
    options += ["global_batch_size=6", "optimizer.eps=1e-4"]
    one = run_train(*options, f"output_dir={tmp_path / 'one'}")
    ring = [*options, "gather=ring", f"output_dir={tmp_path / 'ring'}"]
    run(train_as_rank, 3, ring)
    curve = _losses(one)
    assert len(curve) == 30
    assert curve[-1] < curve[0]
    assert _losses(tmp_path / "ring") == pytest.approx(curve, abs=1e-5)


@pytest.mark.parametrize(
    "parts",
    [
        [("fsdp", 2, 2), ("ddp", 3, 3), ("auto", 1, 4), ("fsdp", 2, 5)],
        pytest.param(
            [("deepspeed_stage_3", 2, 2), ("deepspeed_stage_3", 2, 4)], marks=pytest.mark.exhaustive
        ),
    ],
    ids=["fsdp x2, ddp x3, auto x1, fsdp x2", "deepspeed_stage_3 x2, twice"],
)
def test_checkpoints_load_in_each_other(tmp_path: Path, parts: list[tuple[str, int, int]]) -> None:
    """A run that each part takes up with another strategy, or as many ranks, up to a step."""
    last = parts[-1][-1]
    options = [*_options(tmp_path), "optimizer.eps=1e-4", "schedule=linear"]
    options += [f"trainer.max_steps={last}", "checkpoint.every_n_steps=1"]
    run_train(*options, f"output_dir={tmp_path / 'whole'}")
    folder = tmp_path / "parts"
    for strategy, world_size, stop in parts:
        given = [*options, f"output_dir={folder}", f"strategy={strategy}"]
        run(_train_until, world_size, given, stop if stop < last else None)
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(folder)[name], tensor, rtol=1e-3, atol=2e-5)
    assert _losses(folder) == pytest.approx(_losses(tmp_path / "whole"), abs=1e-5)


def _train_until(rank: int, world_size: int, overrides: list[str], stop: int | None) -> None:
    """Train under the schedule of the whole run, but leave after `stop` steps as a kill would."""
    from inbatch.callbacks.checkpoints import Checkpoints

    class LeaveError(Exception):
        pass

    save = Checkpoints.save

    def save_and_leave(self: Checkpoints, trainer: object) -> None:
        save(self, trainer)  # type: ignore[arg-type]
        if trainer.global_step == stop:  # type: ignore[attr-defined]
            raise LeaveError

    if stop is not None:
        Checkpoints.save = save_and_leave  # type: ignore[method-assign]
    quiet()
    try:
        run_train(*overrides)
    except LeaveError:
        return
