"""A recipe of two tiny trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from helpers.runs import TINY, write_triplets

STEPS = 4


def write_recipe(folder: Path) -> tuple[Path, list[str]]:
    """The file, and a command line for it."""
    rows = write_triplets(folder / "triplets.jsonl", 40)
    options = [
        "data.train.triplets=${data.train}",
        "global_batch_size=8",
        f"trainer.max_steps={STEPS}",
    ]
    both = [*TINY, *options, "checkpoint.every_n_steps=1"]
    stages = {
        "first": {"command": "train", "keys": both},
        "second": {"command": "train", "keys": [*both, "data.eval=${folder.first}/../dev.jsonl"]},
    }
    (folder / "out").mkdir()
    write_triplets(folder / "out" / "dev.jsonl", 8)
    path = folder / "pair.yaml"
    path.write_text(yaml.safe_dump({"keys": {"data": {"train": "???"}}, "stages": stages}))
    return path, [f"data.train={rows}", f"output_dir={folder / 'out'}"]


def of_stage(name: str, overrides: Sequence[str]) -> list[str]:
    """Overrides that one stage gets."""
    return [f"{name}.{override}" for override in overrides]
