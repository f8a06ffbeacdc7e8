"""Asks Slurm to start a job again that has stopped before its end.

Only a job that still runs is requeued. Where it is ending, its user has cancelled it, or Slurm itself
has taken its nodes and starts it again by itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from inbatch.callbacks.preemption import Preempted

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on where this one stopped


def requeue(environ: Mapping[str, str] | None = None) -> str:
    """Requeue the job of this process, if it is one that can be; returns what the user should know."""
    job = (os.environ if environ is None else environ).get("SLURM_JOB_ID")
    if job is None:
        return "the same command goes on from there"
    shown = _scontrol("show", "job", "--oneliner", job)
    refused = shown.stderr.strip() if shown.returncode else why_not(job_fields(shown.stdout))
    if refused is None:
        asked = _scontrol("requeue", job)
        refused = asked.stderr.strip() if asked.returncode else None
    if refused is not None:
        return (
            f"job {job} is not requeued by itself ({refused}): started again, it goes on from there"
        )
    return f"job {job} is requeued and goes on from there"


def job_fields(line: str) -> dict[str, str]:
    """``Name=value`` pairs of ``scontrol show job --oneliner``; values with spaces are cut short."""
    return dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))


def why_not(fields: Mapping[str, str]) -> str | None:
    """Why a job is not to be requeued; None if it is."""
    if fields.get("JobState") != "RUNNING":
        return f"it is {fields.get('JobState', 'unknown')}"
    if fields.get("BatchFlag") != "1":
        return "it is no batch job"
    if fields.get("Requeue") != "1":
        return "it was submitted with --no-requeue"
    return None


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["scontrol", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


@contextmanager
def preempted_exits() -> Iterator[None]:
    """A `Preempted` inside ends the process: rank 0 requeues, says so, and exits with 75.

    The other ranks exit with 0: a launcher takes anything else for a failure and kills rank 0.
    """
    try:
        yield
    except Preempted as stopped:
        if stopped.rank:
            sys.exit(0)
        print(f"{stopped}; {requeue()}", file=sys.stderr, flush=True)
        sys.exit(EXIT_PREEMPTED)
