"""The stages of a recipe as jobs of a real Slurm, which end inside a stage and between two."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.faults import fault
from helpers.launching import environment
from helpers.recipes import STEPS, of_stage, write_recipe
from helpers.runs import metrics
from helpers.slurm_cluster import Cluster
from inbatch.cli.recipe import read_stages, submit_stages

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm"), pytest.mark.timeout(1200)]
JOB = ["slurm.gpus_per_node=0", "slurm.cpus_per_task=1", "slurm.time=10"]


def test_a_recipe_goes_on_after_its_jobs_have_ended(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, options = write_recipe(tmp_path)
    out = tmp_path / "out"
    given = [
        f"SLURM_CONF={cluster.environ['SLURM_CONF']}",
        f"PYTHONPATH={environment()['PYTHONPATH']}",
    ]
    sbatch = ["env", *given, *cluster.on("login", "sbatch")]

    def submit(*more: str) -> dict[str, str]:
        return submit_stages(*read_stages(str(path), [*options, *more]), JOB, sbatch=sbatch)

    def end(job_id: str) -> str:
        return cluster.wait_for_end(job_id, seconds=600)["JobState"]

    sent = submit(*of_stage("first", fault("SIGKILL", step=2)))
    assert (end(sent["first"]), end(sent["second"])) == ("FAILED", "CANCELLED")
    assert not (out / "recipe").exists()

    sent = submit()
    cluster.ask("scancel", sent["second"])
    assert (end(sent["first"]), end(sent["second"])) == ("COMPLETED", "CANCELLED")
    assert [row["step"] for row in metrics(out / "first")] == list(range(1, STEPS + 1))

    sent = submit()
    assert list(sent) == ["second"], "the first has been done"
    assert end(sent["second"]) == "COMPLETED"
    assert (out / "second" / "model" / "README.md").exists()
    assert submit() == {}
