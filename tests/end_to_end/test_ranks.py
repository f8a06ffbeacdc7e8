"""Whole runs on several ranks: as one process, and on from each other's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import metrics, run_train, weights, write_triplets

NO_DROPOUT = (
    "+encoder.config.hidden_dropout_prob=0",
    "+encoder.config.attention_probs_dropout_prob=0",
)


def _train(rank: int, world_size: int, overrides: list[str]) -> None:
    quiet()
    run_train(*overrides)


def _options(folder: Path) -> list[str]:
    return [
        f"data.train.triplets={write_triplets(folder / 'triplets.jsonl')}",
        "global_batch_size=8",
        "gradcache=rows",
        "gradcache.chunk_size=3",
        "evaluation=triplet",
        f"data.eval={write_triplets(folder / 'dev.jsonl', 21, seed=50)}",
        *NO_DROPOUT,
    ]


@pytest.mark.parametrize(
    ("strategy", "world_size"),
    [
        ("ddp", 3),
        ("fsdp", 2),
        ("deepspeed_stage_2", 2),
        ("deepspeed_stage_2_offload", 2),
        ("deepspeed_stage_3", 2),
    ],
)
def test_ranks_end_as_one(tmp_path: Path, strategy: str, world_size: int) -> None:
    batch = "global_batch_size=12"  # divides over three ranks
    options = [*_options(tmp_path), batch, "trainer.max_steps=5", "optimizer=sgd"]
    one, several = tmp_path / "one", tmp_path / "several"
    run_train(*options, f"output_dir={one}")
    run(_train, world_size, [*options, f"strategy={strategy}", f"output_dir={several}"])
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(several)[name], tensor, rtol=1e-4, atol=1e-6)
    for a, b in zip(metrics(one), metrics(several), strict=True):
        assert a["step"] == b["step"]
        for key in ("train/loss", "eval/eval_cosine_accuracy"):
            assert b.get(key) == pytest.approx(a.get(key), abs=1e-5)
    rates = [next(r for r in metrics(path) if r["step"] == 5) for path in (one, several)]
    tokens_a_row = [row["perf/tokens_per_s"] / row["perf/samples_per_s"] for row in rates]
    assert tokens_a_row[1] == pytest.approx(tokens_a_row[0], rel=0.25), "of all ranks, both"
    reports = [json.loads((path / "data_report.json").read_text()) for path in (one, several)]
    assert reports[0] == reports[1]
    assert (several / "model" / "README.md").exists()


def _losses(path: Path) -> list[float]:
    return [row["train/loss"] for row in metrics(path) if "train/loss" in row]


def test_loss_curve_of_thirty_steps(tmp_path: Path) -> None:
    options = [
        *_options(tmp_path),
        "trainer.max_epochs=10",
        "trainer.max_steps=30",
    ]
    options = [o for o in options if not o.startswith(("evaluation=", "data.eval="))]
    options += ["global_batch_size=6", "optimizer.eps=1e-4"]
    curves = []
    for world_size, gather in ((1, "global"), (3, "global"), (3, "ring")):
        folder = tmp_path / f"{world_size}-{gather}"
        run(_train, world_size, [*options, f"gather={gather}", f"output_dir={folder}"])
        curves.append(_losses(folder))
    assert len(curves[0]) == 30
    assert curves[0][-1] < curves[0][0]
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], abs=1e-5)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("fsdp", 2), ("ddp", 3)),
        (("fsdp", 3), ("auto", 1)),
        (("auto", 1), ("fsdp", 2)),
        (("deepspeed_stage_2", 2), ("deepspeed_stage_2", 2)),
        (("deepspeed_stage_3", 2), ("deepspeed_stage_3", 2)),
    ],
    ids=lambda value: f"{value[0]} x{value[1]}",
)
def test_checkpoints_load_in_each_other(
    tmp_path: Path, first: tuple[str, int], second: tuple[str, int]
) -> None:
    options = [*_options(tmp_path), "global_batch_size=6", "optimizer.eps=1e-4", "schedule=linear"]
    options += ["trainer.max_epochs=1", "checkpoint.every_n_steps=1"]
    run_train(*options, f"output_dir={tmp_path / 'whole'}", "trainer.max_steps=6")
    parts = tmp_path / "parts"
    for (strategy, world_size), stop in ((first, 3), (second, 6)):
        stopped = ["trainer.max_steps=6", f"output_dir={parts}", f"strategy={strategy}"]
        run(_train_until, world_size, [*options, *stopped], stop)
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-3, atol=2e-5)
    assert _losses(parts) == pytest.approx(_losses(tmp_path / "whole"), abs=1e-5)


def _train_until(rank: int, world_size: int, overrides: list[str], stop: int) -> None:
    """Train under the schedule of the whole run, but leave after `stop` steps as a kill would."""
    from inbatch.callbacks.checkpoints import Checkpoints

    class LeaveError(Exception):
        pass

    save = Checkpoints.save

    def save_and_leave(self: Checkpoints, trainer: object) -> None:
        save(self, trainer)  # type: ignore[arg-type]
        if trainer.global_step == stop:  # type: ignore[attr-defined]
            raise LeaveError

    if stop < 6:
        Checkpoints.save = save_and_leave  # type: ignore[method-assign]
    quiet()
    try:
        run_train(*overrides)
    except LeaveError:
        return
