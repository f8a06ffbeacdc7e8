"""What a run started from the command line leaves behind: its log, its rows, its card."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from helpers.runs import TINY, metrics, run_train, write_triplets
from inbatch.cli.train import main

pytestmark = pytest.mark.xdist_group("results")  # one run for all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, and the same one going on to six."""
    folder = tmp_path_factory.mktemp("results")
    write_triplets(folder / "rows.jsonl", 60)
    write_triplets(folder / "dev.jsonl", 12, seed=50)
    arguments = [
        *TINY,
        "trainer.log_every_steps=10",
        f"data.train={folder / 'rows.jsonl'}",
        f"data.eval={folder / 'dev.jsonl'}",
        f"output_dir={folder / 'run'}",
        "global_batch_size=6",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRA_FULL_ERROR", "0")  # `main` sets both; to be as before afterwards
        patch.setenv("PL_GLOBAL_SEED", "0")
        for steps in (4, 6):
            patch.setattr(sys, "argv", ["train.py", *arguments, f"trainer.max_steps={steps}"])
            main()
    return folder


def test_the_log_has_what_was_shown(folder: Path) -> None:
    lines = (folder / "run" / "train.log").read_text().splitlines()
    texts = [line.partition("] - ")[2] for line in lines]
    for start in ("data.train: 60 rows", "evaluate  step 4", "train  epoch 0.40/1  step 4/4"):
        assert len([text for text in texts if text.startswith(start)]) >= 1, start
    assert texts.index("run.steps: 4") < texts.index("run.steps: 6, from step 4"), "appended"
    assert texts[-1].startswith("checkpoint: ")


def test_rows_have_their_own_epoch_and_begin_with_step_1(folder: Path) -> None:
    rows = metrics(folder / "run")
    evaluated = {row["step"]: row["epoch"] for row in rows if any("eval/" in key for key in row)}
    assert evaluated == pytest.approx({0: 0.0, 4: 0.4, 6: 0.6})
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 4, 6]


def test_the_card_shows_settings_and_no_path(folder: Path) -> None:
    card = (folder / "run" / "model" / "README.md").read_text()
    assert str(folder) not in card
    assert "`data.train.train.path`: rows.jsonl" in card
    assert "<redacted>" not in card
    assert "&lt;redacted" not in card
    changed = card.partition("#### Non-Default Hyperparameters")[2].partition("####")[0]
    assert "`optimizer.lr`: 0.001" in changed
    assert "betas" not in changed
    assert "timeout_s" not in changed


def test_the_saved_step_is_the_same_everywhere(folder: Path) -> None:
    result = json.loads((folder / "run" / "result.json").read_text())
    card = (folder / "run" / "model" / "README.md").read_text()
    log = (folder / "run" / "train.log").read_text()
    assert f"The model is the checkpoint of step {result['step']}," in card
    assert re.search(rf"best: {result['metric']} .* at step {result['step']}$", log, re.MULTILINE)


def test_a_run_that_goes_on_elsewhere_has_a_model_of_its_own(folder: Path, tmp_path: Path) -> None:
    run_train(
        f"data.train={folder / 'rows.jsonl'}",
        f"data.eval={folder / 'dev.jsonl'}",
        f"output_dir={tmp_path}",
        f"resume={folder / 'run' / 'checkpoints' / 'last.ckpt'}",
        "evaluation.every_epoch=false",
        "global_batch_size=6",
        "trainer.max_steps=8",
    )
    assert (tmp_path / "model" / "modules.json").exists()
    assert json.loads((tmp_path / "result.json").read_text())["step"] is None
