"""Job scripts for Slurm as text. No file is read and nothing is run.

The scripts of `slurm/` run as they are; for a job, the values of their ``#SBATCH`` lines and of their
variables are replaced, so that what a job runs can be read beside it with every line's reason.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

_OPTION = re.compile(r"#SBATCH --([\w-]+)")
_VARIABLE = re.compile(r"([A-Z]+)=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    """Resources of a job; `slurm/cluster.yaml` holds the values of a cluster.

    Args:
        job: the script of `slurm/` that runs.
        nodes: nodes.
        gpus_per_node: GPUs of each; 0 for a job on CPUs.
        tasks_per_node: ranks of each; None for one per GPU, and one per node without GPUs.
        cpus_per_task: cores of each rank, for its threads and its loader processes.
        time: limit, in a format of sbatch ("24:00:00", "2-00:00:00", minutes).
        save_s: seconds before that limit at which the run is asked to save.
        requeue: whether Slurm may start the job again, and the run itself may ask for it.
        partition: queue of the job; None for the cluster's default.
        account: account that is charged; None for the user's default.
        mem: memory of each node ("64G"), "0" for all of it; None for the cluster's default.
        modules: environment modules to load.
        container: path of an Apptainer image to run in; None for none.
        python: interpreter of the job; None for the one that submits, or `python` in a container.
        options: further options of sbatch: {long name: value}; "" for one without value, None to leave
            out one of the script's.
        srun: further options of srun alike, which starts the ranks: {container-image: IMAGE} with pyxis.
    """

    job: Literal["train", "embed", "sweep"] = "train"
    nodes: int = 1
    gpus_per_node: int = 1
    tasks_per_node: int | None = None
    cpus_per_task: int = 8
    time: str | int = "24:00:00"
    save_s: int = 300
    requeue: bool = True
    partition: str | None = None
    account: str | None = None
    mem: str | int | None = None
    modules: list[str] = field(default_factory=list)
    container: str | None = None
    python: str | None = None
    options: dict[str, str | int | None] = field(default_factory=dict)
    srun: dict[str, str | int] = field(default_factory=dict)

    @property
    def tasks_of_node(self) -> int:
        """Ranks of each node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def num_tasks(self) -> int:
        """Ranks of the job."""
        return self.nodes * self.tasks_of_node


def job_options(
    slurm: Slurm, *, name: str, directory: Path, cwd: Path, trials: int | None = None
) -> dict[str, str | None]:
    """Return options of sbatch: {long name: value}, "" for one without value, None for one left out.

    Jobs of one output directory have the same name, and Slurm runs those one after another: several
    submitted at once make one long run, and two never write to the same files. The trials of a sweep have
    a folder each, and run side by side.
    """
    place = hashlib.sha1(str(directory.parent).encode()).hexdigest()[:6]
    return {
        "job-name": f"{name}-{place}",
        "dependency": "singleton" if trials is None else None,
        "array": None if trials is None else f"0-{trials - 1}",
        "nodes": str(slurm.nodes),
        "ntasks-per-node": str(slurm.tasks_of_node),
        "gpus-per-node": str(slurm.gpus_per_node) if slurm.gpus_per_node else None,
        "cpus-per-task": str(slurm.cpus_per_task),
        "time": str(slurm.time),
        "signal": None if slurm.job == "embed" else f"USR1@{slurm.save_s}",
        "requeue": "" if slurm.requeue else None,
        "no-requeue": None if slurm.requeue else "",
        "partition": slurm.partition,
        "account": slurm.account,
        "mem": None if slurm.mem is None else str(slurm.mem),
        "chdir": str(cwd),
        "output": str(directory / ("%j.log" if trials is None else "%A_%a.log")),
        **{key: None if value is None else str(value) for key, value in slurm.options.items()},
    }


def job_variables(
    slurm: Slurm,
    *,
    directory: Path,
    cwd: Path,
    python: str,
    arguments: Sequence[str] | None = None,
) -> dict[str, str | Sequence[str]]:
    """Return the variables of the script; a sequence becomes an array of the shell.

    Args:
        slurm: the resources.
        directory: of the job.
        cwd: folder that it runs in.
        python: the interpreter that submits.
        arguments: of the command; None for the configuration in the job's directory.
    """
    in_container = slurm.container or "container-image" in slurm.srun
    return {
        "CODE": str(directory / "code"),
        "PYTHON": slurm.python or ("python" if in_container else python),
        "MODULES": slurm.modules,
        "CONTAINER": slurm.container or "",
        "SRUN": [f"--{key}={value}".removesuffix("=") for key, value in slurm.srun.items()],
        "BIND": f"{directory.parents[1]},{cwd}",
        "ARGS": arguments or ["--config-path", str(directory), "--config-name", "config"],
    }


def render(
    template: str,
    *,
    options: Mapping[str, str | None],
    variables: Mapping[str, str | Sequence[str]],
) -> str:
    """Return a script with other values in its ``#SBATCH`` lines and variables.

    Args:
        template: the script.
        options: {long name: value}; "" for an option without value, None leaves the option out.
            Options that the script lacks follow its last ``#SBATCH`` line.
        variables: {name: value}, each assigned in one line of the script.

    Raises:
        ValueError: the script does not assign one of the variables in one line.
    """
    options, variables = dict(options), dict(variables)
    lines: list[str] = []
    last = 0  # line after the last option
    for line in template.splitlines():
        option, variable = _OPTION.match(line), _VARIABLE.match(line)
        if option is not None and option[1] in options:
            lines += _option(option[1], options.pop(option[1]))
        elif variable is not None and variable[1] in variables:
            lines.append(f"{variable[1]}={_quoted(variables.pop(variable[1]))}")
        else:
            lines.append(line)
        last = len(lines) if option is not None else last
    if variables:
        raise ValueError(f"the script assigns no {' and no '.join(variables)}")
    lines[last:last] = [line for name, value in options.items() for line in _option(name, value)]
    return "\n".join(lines) + "\n"


def _option(name: str, value: str | None) -> list[str]:
    if value is None:
        return []
    return [f"#SBATCH --{name}={value}" if value else f"#SBATCH --{name}"]


def _quoted(value: str | Sequence[str]) -> str:
    return shlex.quote(value) if isinstance(value, str) else f"({shlex.join(value)})"
