"""`srun ... inbatch doctor` looks at the ranks of all nodes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.slurm_cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm"), pytest.mark.timeout(1200)]


@pytest.mark.exhaustive
def test_ranks_of_two_nodes_answer(cluster: Cluster, tmp_path: Path) -> None:
    size = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1"]
    command = [sys.executable, "-m", "inbatch", "doctor", f"output_dir={tmp_path}", "device=cpu"]
    done = subprocess.run(
        cluster.on("login", "srun", *size, *command),
        env={**cluster.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "inbatch doctor: 2 ranks on n1, n2" in done.stdout, done.stderr
    found = json.loads((tmp_path / "doctor.json").read_text())
    # A rate may be too low where other tests take the cores and the disk.
    by_load = re.compile(r"(ranks? [\d, ]+: )?(products in bf16 reach|output_dir=\S+ takes) ")
    assert [problem for problem in found["problems"] if not by_load.match(problem)] == []
    assert done.returncode == (1 if found["problems"] else 0)
    assert [rank["host"] for rank in found["ranks"]] == ["n1", "n2"]
    assert [row["ranks"] for row in found["rates"]["collectives"]["all_reduce"]][:2] == [2, 2]
