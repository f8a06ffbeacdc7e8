"""A program that calls `inbatch.train` trains on ranks that another has started, as torchrun does."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import inbatch
from helpers.distributed import run


def program(rank: int, world_size: int, folder: Path) -> tuple[int | None, str, str]:
    os.chdir(folder)
    rows = [{"query": f"red shoe {n}", "positive": f"shoe {n} in red"} for n in range(64)]
    with redirect_stdout(StringIO()) as said:
        result = inbatch.train(
            rows,
            eval=rows[:16],
            encoder="tiny",
            loss="multiple_negatives_ranking",
            global_batch_size=16,
            output_dir="shoes",
            **{"trainer.accelerator": "cpu"},
        )
    return result.best_step, str(result.model), said.getvalue()


def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    first, second = run(program, 2, tmp_path)
    assert first[:2] == second[:2] == (4, "shoes/model")
    assert "run.ranks: 2" in first[2]
    assert second[2] == ""
    assert (tmp_path / "shoes" / "model" / "README.md").exists()
