"""Requeues a Slurm job that has stopped before its end.

Only a job that still runs is requeued. One that is ending was cancelled by its user, or Slurm has taken its
nodes and will start it again by itself.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from inbatch.cluster.ask_slurm import ask_slurm
from inbatch.cluster.stop_request import CTRL_C, EXIT_INTERRUPTED, GO_ON, Preempted

EXIT_TERMINATED = 128 + signal.SIGTERM  # as a shell says it
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes where this one stopped


class Asked(NamedTuple):
    """The answer to a request to requeue a job."""

    said: str  # what the user should know
    refused: bool = False


def requeue(
    environ: Mapping[str, str] | None = None, *, if_preempted: bool = False, go_on: str = GO_ON
) -> Asked:
    """Requeue the job of this process if Slurm allows it.

    Args:
        environ: variables of the job; those of this process by default.
        if_preempted: requeue only where Slurm is taking the job's nodes.
        go_on: said where there is no job.
    """
    job = (os.environ if environ is None else environ).get("SLURM_JOB_ID")
    if job is None:
        return Asked(go_on)
    shown = ask_slurm("scontrol", "show", "job", "--oneliner", job)
    fields = job_fields(shown.stdout)
    refused = shown.stderr.strip() if shown.returncode else why_not(fields)
    if refused is None and if_preempted and not is_preempted(fields):
        refused = "it is not being preempted"
    if refused is None:
        asked = ask_slurm("scontrol", "requeue", job)
        refused = asked.stderr.strip() if asked.returncode else None
    if refused is not None:
        said = f"job {job} is not requeued ({refused}): submit it again to resume from there"
        return Asked(said, refused=True)
    return Asked(f"job {job} is requeued and resumes from there")


def job_fields(line: str) -> dict[str, str]:
    """``Name=value`` pairs of ``scontrol show job --oneliner``; values with spaces are cut short."""
    return dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))


def why_not(fields: Mapping[str, str]) -> str | None:
    """Return why a job cannot be requeued, None if it can."""
    if fields.get("JobState") != "RUNNING":
        return f"it is {fields.get('JobState', 'unknown')}"
    if fields.get("BatchFlag") != "1":
        return "it is not a batch job"
    if fields.get("Requeue") != "1":
        return "it was submitted with --no-requeue"
    return None


def is_preempted(fields: Mapping[str, str]) -> bool:
    """Return whether Slurm is taking a job's nodes and has given it time to end."""
    return fields.get("PreemptTime", "None") not in ("None", "N/A", "Unknown")


def leave_early(name: str, *, first: bool, go_on: str = GO_ON) -> int:
    """Return the exit code of a process that is asked to stop before the first step.

    The codes are those of `preempted_exits`, and that of a failure where Slurm ends a job that it will not
    start again.

    Args:
        name: of the signal that asked for it.
        first: this is the process of rank 0, which requeues the job and says so.
        go_on: how to go on, in words.
    """
    if not first:
        return 0
    # Launchers send SIGTERM to the other ranks when one has failed. Requeueing then would repeat the failure
    # for ever.
    ended = name == "SIGTERM"
    then = Asked(go_on) if name == CTRL_C else requeue(if_preempted=ended, go_on=go_on)
    said = f"stopped by {name} before the first step of this start; {then.said}"
    print(said, file=sys.stderr, flush=True)
    if name == CTRL_C:
        return EXIT_INTERRUPTED
    return EXIT_TERMINATED if ended and then.refused else EXIT_PREEMPTED


@contextmanager
def preempted_exits(go_on: str = GO_ON) -> Iterator[None]:
    """End the process on a `Preempted` inside: rank 0 requeues the job, says so and exits with 75.

    After a Ctrl-C it exits with 130 and requeues nothing: that was a person, not the cluster. The other ranks
    exit with 0, since a launcher takes anything else for a failure and kills rank 0.

    Args:
        go_on: how to go on, in words.
    """
    try:
        yield
    except Preempted as stopped:
        if stopped.rank:
            sys.exit(0)
        interrupted = stopped.number == signal.SIGINT
        said = go_on if interrupted else requeue(go_on=go_on).said
        print(f"{stopped}; {said}", file=sys.stderr, flush=True)
        sys.exit(EXIT_INTERRUPTED if interrupted else EXIT_PREEMPTED)
