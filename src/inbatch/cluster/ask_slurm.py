"""A command of Slurm that may be missing, or hang with its controller."""

from __future__ import annotations

import subprocess


def ask_slurm(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command; one that cannot be run or does not end has failed, with the reason as its error."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
