"""A run needs no package of an extra, and asks for one in one sentence where it does."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.distributed import run as run_ranks
from helpers.forked_command import Left, train_command
from helpers.runs import TINY, write_triplets

ROOT = Path(__file__).parents[1]
ABSENT = dict.fromkeys(("wandb", "deepspeed"))  # modules as of packages that are not installed
NEW = f"""
import sys
sys.modules |= {ABSENT}
from inbatch.cli.main import main
main()
"""


def options(folder: Path) -> list[str]:
    data = write_triplets(folder / "rows.jsonl", 16)
    length = ["global_batch_size=8", "trainer.max_steps=1"]
    return [f"data.train={data}", *length, f"output_dir={folder / 'run'}"]


def test_a_run_needs_neither(tmp_path: Path) -> None:
    line = [sys.executable, "-c", NEW, "train", *TINY, *options(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model" / "README.md").exists()


def without_packages(rank: int, world_size: int, folder: Path, *overrides: str) -> Left:
    sys.modules |= ABSENT  # type: ignore[arg-type]
    return train_command(rank, world_size, folder, *overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "logger=wandb",
            "error: logger='wandb' needs the package wandb: run pip install 'inbatch[wandb]'\n",
        ),
        (
            "strategy=deepspeed_stage_1",
            "error: strategy DeepSpeed needs the package deepspeed: run pip install 'inbatch[deepspeed]'\n",
        ),
    ],
)
def test_a_missing_package_is_asked_for(tmp_path: Path, override: str, message: str) -> None:
    [left] = run_ranks(without_packages, 1, tmp_path, *options(tmp_path), override)
    assert (left.code, left.said) == (1, message)


def test_the_tests_install_all_extras() -> None:
    """But for mteb, which brings too much along; a test of it is skipped where it is absent."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (all_of_them,) = [name for name in extras["dev"] if name.startswith("inbatch[")]
    assert {*all_of_them[8:-1].split(",")} == {*extras} - {"dev", "mteb"}
