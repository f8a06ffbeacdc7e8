"""A full disk ends a run in one sentence, and the same command goes on once there is room."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from helpers.runs import metrics, run_train, write_triplets
from inbatch.errors import ConfigError


@pytest.mark.parametrize(
    ("file", "owner", "name", "place"),
    [
        ("config.yaml", os, "replace", 1),
        ("metrics.jsonl", Path, "open", 0),
        ("checkpoints/step-00000002.ckpt", os, "replace", 1),
        ("metrics.csv", os, "replace", 1),
        ("model", os, "rename", 1),
        ("plots/loss.png", Figure, "savefig", 1),
        ("model/plots/loss.png", shutil, "copyfile", 1),
        ("model/README.md", os, "replace", 1),
    ],
)
def test_the_file_that_does_not_fit_is_named(
    tmp_path: Path, file: str, owner: Any, name: str, place: int
) -> None:
    """The function of `owner` that writes it fails where its argument at `place` is the file."""
    output = tmp_path / "run"
    data = write_triplets(tmp_path / "triplets.jsonl")
    options = [f"data.train={data}", f"data.eval={data}", "global_batch_size=8"]
    options += ["trainer.max_steps=4", "checkpoint.every_n_steps=2", f"output_dir={output}"]
    real = getattr(owner, name)

    def failing(*args: Any, **more: Any) -> Any:
        if Path(args[place]) == output / file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, failing)
        with pytest.raises(ConfigError) as error:
            run_train(*options, plots=True)
    expected = f"{output / file} cannot be written (No space left on device): free space there"
    assert str(error.value) == f"{expected}, then the same command goes on"
    assert not [*output.rglob("*.new"), *output.rglob(".*.new")]
    run_train(*options)
    assert [row["step"] for row in metrics(output) if "train/loss" in row] == [1, 2, 3, 4]
