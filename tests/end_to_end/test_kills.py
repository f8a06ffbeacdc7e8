"""Runs that are killed and started again end as one that never was: a kill of scripts/kill_resume.py."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from helpers.distributed import run as run_ranks
from helpers.forked_command import train_command
from helpers.forked_process import ForkedProcess

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_resume.py"


def start(settings: list[str], output: Path) -> ForkedProcess:
    """Start a run as the script does, but for the import of its libraries."""
    return ForkedProcess(train_on_two_ranks, settings, output)


def train_on_two_ranks(settings: list[str], output: Path) -> None:
    ended = run_ranks(train_command, 2, output.parent, *settings, f"output_dir={output}")
    assert not any(rank.code for rank in ended), ended


@pytest.mark.slow
def test_killed_runs_are_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "start", start)
    line, same = script.compare(tmp_path, "ddp/2", [], kills=1, seed=7)
    assert same
    assert line.endswith("| identical | identical |")
