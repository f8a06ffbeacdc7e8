"""`inbatch recipe`: a chain of commands, here or as Slurm jobs that wait for one another.

A recipe is a file of `conf/recipe/` (or a path) with stages, see `inbatch.recipe.stages`. Each stage is a
command of its own with a folder below `output_dir`. All are checked before the first one starts; those that
have ended well are not run again, and one that was stopped goes on as its command does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from inbatch.cli.commands import COMMANDS
from inbatch.cli.hydra_app import COMPOSITION_ERRORS, composition_error, user_errors
from inbatch.cli.overrides import complete_overrides
from inbatch.cli.submit import SLURM, Job, read_slurm, submit_job
from inbatch.cluster.job_script import Slurm, job_options, job_variables, render
from inbatch.config.check import check_config
from inbatch.config.check_embed import check_embed
from inbatch.config.check_judging import check_compare, check_evaluate
from inbatch.config.check_merge import check_merge
from inbatch.config.check_mine import check_mine
from inbatch.config.composition import compose
from inbatch.config.schema import CONF
from inbatch.errors import ConfigError, did_you_mean
from inbatch.folder.paths import RunFolder
from inbatch.recipe.done import is_done, marks, path_of
from inbatch.recipe.run import run_stages
from inbatch.recipe.stages import Stage, make_stages, read_recipe, recipe_files

_STAGES = ("train", "evaluate", "prepare", "embed-guide", "embed", "mine", "merge", "compare")
_CHECKS: dict[str, Callable[[DictConfig], object]] = {
    "train": check_config,
    "evaluate": check_evaluate,
    "embed": check_embed,
    "mine": check_mine,
    "merge": check_merge,
    "compare": check_compare,
}
_ONE_PROCESS = ("prepare", "merge")  # the others share their work among ranks


def main(typed: str | None = None) -> int:
    """Run or submit as the command line says; `typed` is not needed, no process repeats it."""
    parser = argparse.ArgumentParser(prog="inbatch recipe")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--submit", action="store_true")
    parser.add_argument("recipe", nargs="?", default="")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    with user_errors():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            fix = "start it once; its commands start their ranks (STAGE.trainer.devices=...)"
            raise ConfigError("inbatch recipe", "is started on several ranks", fix)
        slurm = [o for o in options.overrides if o.startswith("slurm.")]
        if slurm and not options.submit:
            raise ConfigError(slurm[0].partition("=")[0], "is for Slurm", "add --submit")
        stages, output_dir = read_stages(
            options.recipe, [o for o in options.overrides if o not in slurm]
        )
        if options.submit:
            submit_stages(stages, output_dir, slurm, dry_run=options.dry_run)
        elif options.dry_run:
            print("\n".join(f"inbatch {s.command} {' '.join(s.arguments)}" for s in stages))
        else:
            return run_stages(stages, output_dir, say=lambda line: print(line, flush=True))
    return 0


def read_stages(name: str, overrides: Sequence[str]) -> tuple[list[Stage], Path]:
    """The checked stages of a recipe, and its output directory."""
    files = recipe_files([Path("conf", "recipe"), CONF / "recipe"])
    path = Path(name) if name.endswith((".yaml", ".yml")) else files.get(name)
    if path is None or not path.is_file():
        fix = did_you_mean(name, files) or f"use one of {', '.join(files)}, or the path of a file"
        raise ConfigError("recipe", "is not a recipe" if name else "is not named", fix, value=name)
    places = [o.partition("=")[2] for o in overrides if o.startswith("output_dir=")]
    output_dir = Path(places[-1] if places else f"outputs/{path.stem}")
    others = [o for o in overrides if not o.startswith("output_dir=")]
    stages = make_stages(read_recipe(path, name), others, output_dir, commands=_STAGES)
    for stage in stages:
        _check(stage)
    return stages, output_dir


def _check(stage: Stage) -> None:
    """Check the keys of a stage; files that stages before it write are not there yet."""
    name = COMMANDS[stage.command].config
    try:
        composed = compose(name, complete_overrides(stage.arguments, CONF))
        if stage.command in _CHECKS:
            _CHECKS[stage.command](composed)
    except COMPOSITION_ERRORS as error:
        raise _of_stage(composition_error(error), stage) from None
    except ConfigError as error:
        raise _of_stage(error, stage) from None


def _of_stage(error: ConfigError, stage: Stage) -> ConfigError:
    return ConfigError(f"{stage.name}.{error.key}", error.problem, error.fix, value=error.value)


def submit_stages(
    stages: Sequence[Stage],
    output_dir: Path,
    keys: Sequence[str],
    *,
    dry_run: bool = False,
    sbatch: Sequence[str] = ("sbatch",),
) -> dict[str, str]:
    """Submit the stages that have not been done, each to run after those that it needs; return their ids.

    Args:
        stages: checked.
        output_dir: of the recipe.
        keys: ``slurm.KEY=value`` of all jobs.
        dry_run: print the scripts instead.
        sbatch: the program.

    Raises:
        ConfigError: Slurm refuses a job, or a stage has been done with other keys.
    """
    wanted, now, cwd = marks(stages), datetime.now(), Path.cwd()
    ids: dict[str, str] = {}
    for stage in stages:
        mark = wanted[stage.name]
        if is_done(output_dir, stage, mark):
            print(f"{stage.name}: done before")
            continue
        slurm = read_slurm([*keys, *(f"slurm.{key}" for key in stage.slurm)])
        waits_for = [ids[name] for name in stage.after if name in ids]
        job = make_job(stage, mark, slurm, output_dir, waits_for=waits_for, now=now, cwd=cwd)
        if dry_run:
            ids[stage.name] = f"<{stage.name}>"
            print(f"# {stage.name}: {job.directory}/job.sbatch\n{job.script}")
            continue
        ids[stage.name] = submit_job(job, sbatch=sbatch)
        print(f"{stage.name}: job {ids[stage.name]}, log {job.log(ids[stage.name])}", flush=True)
    return ids


def make_job(
    stage: Stage,
    mark: Mapping[str, Any],
    slurm: Slurm,
    output_dir: Path,
    *,
    waits_for: Sequence[str],
    now: datetime,
    cwd: Path,
) -> Job:
    """The job of a stage.

    Args:
        stage: with its command and arguments.
        mark: what is written once the stage has ended well.
        slurm: resources.
        output_dir: of the recipe.
        waits_for: ids of the jobs that must have ended well.
        now: time that names the job's directory.
        cwd: folder that the job runs in.
    """
    if stage.command in _ONE_PROCESS:
        slurm = replace(slurm, nodes=1, tasks_per_node=1)
    folder = RunFolder(cwd / stage.folder)
    directory = folder.jobs / now.strftime("%Y-%m-%d_%H-%M-%S")
    options = job_options(slurm, name=stage.name, directory=directory, cwd=cwd)
    options["dependency"] = ",".join(["singleton", *(f"afterok:{each}" for each in waits_for)])
    arguments = complete_overrides(stage.arguments, CONF)
    variables: dict[str, Any] = job_variables(
        slurm, directory=directory, cwd=cwd, python=sys.executable, arguments=arguments
    )
    variables |= {
        "BIND": f"{cwd / output_dir},{cwd}",  # stages read what others have written
        "COMMAND": stage.command,
        "MARK": str(RunFolder(directory).config),
        "DONE": str(cwd / path_of(output_dir, stage.name)),
    }
    script = render((SLURM / "stage.sbatch").read_text(), options=options, variables=variables)
    text = f"{json.dumps(mark)}\n"
    return Job(script, text, directory, output_dir=folder.path, wandb=None)
