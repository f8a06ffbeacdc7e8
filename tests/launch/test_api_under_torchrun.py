"""A program that calls `inbatch.train` is started on several ranks by torchrun, like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import inbatch
rows = [{"query": f"red shoe {n}", "positive": f"shoe {n} in red"} for n in range(64)]
result = inbatch.train(
    rows,
    eval=rows[:16],
    encoder="tiny",
    loss="multiple_negatives_ranking",
    global_batch_size=16,
    output_dir="shoes",
    **{"trainer.accelerator": "cpu"},
)
print(f"step {result.best_step} of {result.model}")
"""


def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "run.ranks: 2" in done.stdout
    assert done.stdout.count("step 4 of shoes/model") == 2
