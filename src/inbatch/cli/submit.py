"""The entry point that submits a run to Slurm: the command line of a run -> a job and its directory.

The directory, `output_dir/jobs/<time>/`, holds all that the job runs: the script, the resolved
configuration, a copy of the code. A checkout that changes while the job waits, or between two of its
starts, changes nothing. Mistakes in the configuration end here, not after the queue.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from inbatch.cli.hydra_app import COMPOSITION_ERRORS, complete_overrides, one_line, user_errors
from inbatch.cluster.job_script import Slurm, job_options, job_variables, render
from inbatch.config.check import RunConfig, check_config
from inbatch.config.instantiate import instantiate
from inbatch.config.targets import check_targets
from inbatch.errors import ConfigError

ROOT = Path(__file__).parents[3]
PARTS = ("src", "conf", "scripts", "slurm")  # of the checkout, copied beside each job
_HYDRA = {"run": {"dir": "${output_dir}"}, "output_subdir": None, "job": {"chdir": False}}


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is ready to be submitted."""

    script: str
    config: str  # resolved, YAML
    directory: Path
    run: RunConfig

    def log(self, job_id: str) -> Path:
        """Where the job writes."""
        return self.directory / f"{job_id}.log"


def prepare(arguments: Sequence[str], *, now: datetime, cwd: Path) -> Job:
    """The job that a command line asks for; writes nothing.

    Args:
        arguments: those of `scripts/train.py`, and `slurm.<key>=value` for the keys of `Slurm`.
        now: names the job's directory.
        cwd: where the job runs; relative paths of the configuration start there.

    Raises:
        ConfigError: the configuration is wrong.
    """
    slurm = read_slurm([a for a in arguments if _is_slurm(a)])
    run = read_run([a for a in arguments if not _is_slurm(a)])
    run.output_dir = str(cwd / run.output_dir)
    directory = Path(run.output_dir) / "jobs" / now.strftime("%Y-%m-%d_%H-%M-%S")
    template = (ROOT / "slurm" / f"{slurm.job}.sbatch").read_text()
    script = render(
        template,
        options=job_options(slurm, name=run.name, directory=directory, cwd=cwd),
        variables=job_variables(slurm, directory=directory, cwd=cwd, python=sys.executable),
    )
    values = asdict(run)
    return Job(script, OmegaConf.to_yaml({**values, "hydra": _HYDRA}), directory, run)


def write(job: Job) -> Path:
    """Write the job's directory; returns the path of its script."""
    job.directory.mkdir(parents=True)
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, job.directory / "code" / part, ignore=ignored)
    (job.directory / "config.yaml").write_text(job.config)
    script = job.directory / "job.sbatch"
    script.write_text(job.script)
    return script


def submit(script: Path, *, sbatch: Sequence[str] = ("sbatch",)) -> str:
    """Hand a script to Slurm; returns the job's id.

    Raises:
        ConfigError: Slurm refuses the job, or is not there.
    """
    try:
        done = subprocess.run(
            [*sbatch, "--parsable", str(script)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ConfigError(
            f"{sbatch[0]} is not found: submit on a login node, or look with --dry-run"
        ) from None
    if done.returncode:
        raise ConfigError(f"Slurm refuses {script}: {done.stderr.strip()}")
    return done.stdout.strip().split(";")[0]  # a cluster's name may follow


def read_slurm(overrides: Sequence[str]) -> Slurm:
    """`slurm/cluster.yaml` with the values of `slurm.<key>=value`, checked."""
    path = ROOT / "slurm" / "cluster.yaml"
    if not path.exists():
        raise ConfigError(f"{path} does not exist: run scripts/submit.py of a checkout")
    values = OmegaConf.load(path)
    try:
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            OmegaConf.update(values, override.key_or_group.removeprefix("slurm."), override.value())
    except OverrideParseException as error:
        raise ConfigError(one_line(error)) from None
    node = OmegaConf.to_container(values, resolve=True)
    check_targets(node, "slurm")
    slurm: Slurm = instantiate(values)
    return slurm


def read_run(overrides: Sequence[str]) -> RunConfig:
    """The checked configuration of a run."""
    conf = ROOT / "conf"
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            return check_config(compose("train", complete_overrides(overrides, conf)))
    except COMPOSITION_ERRORS as error:
        raise ConfigError(one_line(error)) from None


def _is_slurm(argument: str) -> bool:
    return argument.startswith("slurm.")


def main(argv: Sequence[str] | None = None) -> int:
    """Submit as the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="submit.py", description="Submit a run to Slurm.")
    parser.add_argument(
        "--dry-run", action="store_true", help="show the job, write and submit nothing"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="as for scripts/train.py, and slurm.<key>=value (slurm/cluster.yaml)",
    )
    options = parser.parse_args(argv)
    with user_errors():
        job = prepare(options.overrides, now=datetime.now(), cwd=Path.cwd())
        if options.dry_run:
            print(
                f"# {job.directory}/config.yaml\n{job.config}\n# {job.directory}/job.sbatch\n{job.script}"
            )
            return 0
        job_id = submit(write(job))
        print(report(job, job_id))
    return 0


def report(job: Job, job_id: str) -> str:
    """What a user needs after submitting."""
    lines = {"job": job_id, "log": job.log(job_id), "output": job.run.output_dir}
    wandb: Mapping[str, Any] | None = job.run.logger.get("wandb")
    if wandb is not None:
        lines["wandb"] = f"{wandb['project']}/{wandb.get('name') or '(named by W&B)'}"
    return "\n".join(f"{name}: {value}" for name, value in lines.items())
