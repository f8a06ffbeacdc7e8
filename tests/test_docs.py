"""The README's Python runs, and each documented `inbatch train` command line composes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.runs import compose_run
from inbatch.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(page for name in ("conf", "scripts", "slurm", "src") for page in (ROOT / name).rglob("*.md")),
]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def _commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in PAGES:
        for block in _blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["inbatch"]:
                    found.append((f"{page.relative_to(ROOT)}: {line.strip()[:60]}", words[1:]))
    return found


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = _blocks(ROOT / "README.md", "python")
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    *_, first, second = done.stdout.splitlines()
    assert re.fullmatch(r"ndcg@10 0\.\d\d -> 1\.00", first)
    right, wrong = map(float, re.findall(r"-?\d+\.\d+", second))
    assert right > 2 * wrong
    assert "Tip" not in done.stdout + done.stderr


@pytest.mark.parametrize(("where", "words"), _commands(), ids=lambda value: str(value)[:80])
def test_a_documented_command_is_one(where: str, words: list[str]) -> None:
    assert words[0] in COMMANDS, where
    if words[0] != "train" or any(option in words for option in ("--help", "-m", "--cfg")):
        return
    keys = [word for word in words[1:] if "=" in word and "$" not in word and "..." not in word]
    compose_run(*keys)
