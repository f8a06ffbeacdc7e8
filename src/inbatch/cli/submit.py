"""`inbatch submit`: the command line of a run -> a Slurm job and its directory.

The directory, `output_dir/jobs/<time>/`, holds what the job runs: the script, the resolved configuration and,
from a checkout, a copy of the code, so that edits while the job waits or between two of its starts have
no effect. An installed package is used where it is. Mistakes in the configuration end here, and so do missing
files and models and batches that do not divide over the job's ranks.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf

from inbatch import compat
from inbatch.cli.before_queue import check_job
from inbatch.cli.hydra_app import COMPOSITION_ERRORS, composition_error, user_errors
from inbatch.cli.overrides import complete_overrides, quoted
from inbatch.cluster.job_script import Slurm, job_options, job_variables, render
from inbatch.config.check import RunConfig, check_config
from inbatch.config.composition import compose
from inbatch.config.instantiate import instantiate
from inbatch.config.schema import CONF
from inbatch.config.targets import check_targets
from inbatch.errors import ConfigError
from inbatch.folder.identity import run_name
from inbatch.folder.paths import RunFolder

SLURM = CONF.parent / "slurm"  # in the installed package, as conf/, else in the checkout
PARTS = ("src", "conf", "scripts", "slurm")  # of a checkout, copied beside each job
_HYDRA = {"run": {"dir": "${output_dir}"}, "output_subdir": None, "job": {"chdir": False}}


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is ready to be submitted."""

    script: str
    config: str  # resolved, YAML; of a sweep the overrides of its trials
    directory: Path
    output_dir: Path
    wandb: str | None  # project and name of the run there

    def log(self, job_id: str) -> Path:
        """Return the path of the job's log."""
        return self.directory / f"{job_id}.log"


def compose_job(arguments: Sequence[str], *, now: datetime, cwd: Path) -> Job:
    """Return the job that a command line asks for; nothing is written.

    Args:
        arguments: those of `inbatch train`, and `slurm.<key>=value` for the keys of `Slurm`.
        now: time that names the job's directory.
        cwd: folder that the job runs in; relative paths of the configuration start there.

    Raises:
        ConfigError: the configuration is wrong, or does not fit the job.
    """
    slurm = read_slurm([a for a in arguments if _is_slurm(a)])
    arguments = [a for a in arguments if not _is_slurm(a)]
    if slurm.job == "sweep":
        return _compose_sweep(slurm, arguments, now=now, cwd=cwd)
    run = read_run(arguments)
    check_job(run, slurm, cwd=cwd)
    run.output_dir = str(cwd / run.output_dir)
    folder = RunFolder(Path(run.output_dir))
    name = run_name(run.name, folder)
    directory = folder.jobs / now.strftime("%Y-%m-%d_%H-%M-%S")
    template = (SLURM / f"{slurm.job}.sbatch").read_text()
    script = render(
        template,
        options=job_options(slurm, name=name, directory=directory, cwd=cwd),
        variables=job_variables(slurm, directory=directory, cwd=cwd, python=sys.executable),
    )
    values = asdict(run)
    logger = run.logger.get("wandb")
    return Job(
        script,
        OmegaConf.to_yaml({**values, "hydra": _HYDRA}),
        directory,
        output_dir=folder.path,
        wandb=logger and f"{logger['project']}/{logger.get('name') or name}",
    )


def _compose_sweep(slurm: Slurm, arguments: Sequence[str], *, now: datetime, cwd: Path) -> Job:
    """The job array of a sweep, each of whose trials has been checked."""
    time = now.strftime("%Y-%m-%d_%H-%M-%S")
    named = [a.partition("=")[2] for a in arguments if a.startswith("hydra.sweep.dir=")]
    overrides = complete_overrides([a for a in arguments if a[:6] != "hydra."], CONF, sweep=True)
    try:
        trials = compat.trials_of(OverridesParser.create().parse_overrides(overrides))
    except OverrideParseException as error:
        raise composition_error(error) from None
    except HydraException as error:
        fix = "give values, as optimizer.lr=1e-5,2e-5"
        raise ConfigError("slurm.job=sweep", f"cannot count the trials ({error})", fix) from None
    runs = [read_run(trial) for trial in trials]
    for run in runs:
        check_job(run, slurm, cwd=cwd)
    folder = RunFolder(cwd / (named[-1] if named else f"multirun/{runs[0].name}/{time}"))
    directory = folder.jobs / time
    script = render(
        (SLURM / "sweep.sbatch").read_text(),
        options=job_options(
            slurm, name=runs[0].name, directory=directory, cwd=cwd, trials=len(trials)
        ),
        variables={
            **job_variables(
                slurm, directory=directory, cwd=cwd, python=sys.executable, arguments=overrides
            ),
            "SWEEP": str(folder.path),
        },
    )
    shown = OmegaConf.to_yaml({"trials": trials})
    return Job(script, shown, directory, output_dir=folder.path, wandb=None)


def write(job: Job) -> Path:
    """Write the job's directory; return the path of its script."""
    job.directory.mkdir(parents=True)
    in_checkout = (SLURM.parent / "src").is_dir()
    for part in PARTS if in_checkout else ("slurm",):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SLURM.parent / part, job.directory / "code" / part, ignore=ignored)
    RunFolder(job.directory).config.write_text(job.config)
    script = job.directory / "job.sbatch"
    script.write_text(job.script)
    return script


def submit_job(job: Job, *, sbatch: Sequence[str] = ("sbatch",)) -> str:
    """Write a job and hand it to Slurm; return its id. Nothing remains of one that is refused.

    Raises:
        ConfigError: see `submit`.
    """
    made = [path for path in (job.directory, *job.directory.parents) if not path.exists()]
    try:
        return submit(write(job), sbatch=sbatch)
    except BaseException:
        shutil.rmtree(job.directory, ignore_errors=True)
        for folder in made[1:]:
            with suppress(OSError):  # another job has come in between
                folder.rmdir()
        raise


def submit(script: Path, *, sbatch: Sequence[str] = ("sbatch",)) -> str:
    """Hand a script to Slurm; return the job's id.

    Raises:
        ConfigError: Slurm refuses the job or is not installed here.
    """
    try:
        done = subprocess.run(
            [*sbatch, "--parsable", str(script)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        fix = "submit on a login node, or look at the job with --dry-run"
        raise ConfigError(sbatch[0], "is not installed here", fix) from None
    if done.returncode:
        problem = f"is refused by Slurm ({done.stderr.strip()})"
        raise ConfigError(str(script), problem, "correct the slurm.<key> that it names")
    return done.stdout.strip().split(";")[0]  # a cluster's name may follow


def read_slurm(overrides: Sequence[str]) -> Slurm:
    """Return `cluster.yaml` with the values of `slurm.<key>=value`, checked.

    The file is `slurm/cluster.yaml` of the working directory where there is one, so that users of an
    installed package have their own; else that of the checkout or the package.
    """
    own = Path("slurm", "cluster.yaml")
    values = OmegaConf.load(own if own.is_file() else SLURM / "cluster.yaml")
    try:
        for override in OverridesParser.create().parse_overrides(
            [quoted(each) for each in overrides]
        ):
            OmegaConf.update(values, override.key_or_group.removeprefix("slurm."), override.value())
    except OverrideParseException as error:
        raise composition_error(error) from None
    node = OmegaConf.to_container(values, resolve=True)
    check_targets(node, "slurm")
    slurm: Slurm = instantiate(values)
    return slurm


def read_run(overrides: Sequence[str]) -> RunConfig:
    """Return the checked configuration of a run."""
    try:
        return check_config(compose("train", complete_overrides(overrides, CONF)))
    except COMPOSITION_ERRORS as error:
        raise composition_error(error) from None


def _is_slurm(argument: str) -> bool:
    return argument.startswith("slurm.")


def report(job: Job, job_id: str) -> str:
    """Return what a user needs after submitting: the job's id and where its results are."""
    lines = {"job": job_id, "log": job.log(job_id), "output": job.output_dir}
    if job.wandb is not None:
        lines["wandb"] = job.wandb
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def main(typed: str | None = None) -> None:
    """Submit as the command line says; `typed` is not needed, no process repeats it."""
    parser = argparse.ArgumentParser(prog="inbatch submit")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    with user_errors():
        job = compose_job(options.overrides, now=datetime.now(), cwd=Path.cwd())
        if options.dry_run:
            print(f"# {RunFolder(job.directory).config}\n{job.config}")
            print(f"# {job.directory}/job.sbatch\n{job.script}")
            return
        print(report(job, submit_job(job)))
