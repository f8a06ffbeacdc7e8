"""A run needs no package of an extra, and asks for one in one sentence where it does."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.runs import TINY, write_triplets

ROOT = Path(__file__).parents[1]
WITHOUT = """
import sys
sys.modules |= dict.fromkeys(("wandb", "deepspeed"))  # as if they were not installed
from inbatch.cli.main import main
main()
"""


def _train(tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    data = write_triplets(tmp_path / "rows.jsonl", 16)
    options = [
        *TINY,
        f"data.train={data}",
        "global_batch_size=8",
        "trainer.max_steps=1",
        *overrides,
    ]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, "train", *options, f"output_dir={tmp_path / 'run'}"],
        capture_output=True,
        text=True,
    )


def test_a_run_needs_neither(tmp_path: Path) -> None:
    done = _train(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model" / "README.md").exists()


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
    done = _train(tmp_path, override)
    assert (done.returncode, done.stderr) == (1, message)


def test_the_tests_install_all_extras() -> None:
    """But for mteb, which brings too much along; a test of it is skipped where it is absent."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (all_of_them,) = [name for name in extras["dev"] if name.startswith("inbatch[")]
    assert {*all_of_them[8:-1].split(",")} == {*extras} - {"dev", "mteb"}
