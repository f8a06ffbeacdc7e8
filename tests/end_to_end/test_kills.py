"""Runs that are killed and started again end as one that never was: a kill of scripts/kill_resume.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_resume.py"


def test_killed_runs_are_identical() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "1", "--runs", "ddp/2", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("| identical | identical |")
