"""conf/README.md names every file of `conf` that a user chooses."""

from __future__ import annotations

import re
from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"
README = (CONF / "README.md").read_text()
GROUPS = [
    path.name
    for path in CONF.iterdir()
    if path.is_dir() and path.name not in ("hydra", "local", "recipe", "schema")
]


def _table(heading: str) -> dict[str, str]:
    """Rows of the table under a heading: first cell -> second cell."""
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): cells[1].strip() for cells in rows[1:]}


def test_every_experiment_is_listed() -> None:
    listed = re.findall(r"`(\w+)`", " ".join(_table("Experiments")))
    assert sorted(listed) == sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def test_every_group_is_listed() -> None:
    listed = re.findall(r"`(\w+)`", " ".join(_table("Groups")))
    assert sorted(listed) == sorted(GROUPS)
