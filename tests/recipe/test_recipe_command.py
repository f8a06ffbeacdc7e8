"""A recipe as a user runs it: stopped inside a stage, and started again."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from helpers.faults import fault
from helpers.forked_command import printed_into
from helpers.launching import MARK, WITHIN_S, environment, processes
from helpers.recipes import STEPS, of_stage, write_recipe
from helpers.runs import metrics
from inbatch.cli.recipe import main


def _recipe(log: Path, *words: str) -> None:
    """Run the command in a forked process."""
    sys.argv = ["inbatch recipe", *words]
    with printed_into(log):
        sys.exit(main())


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_stopped_recipe_goes_on_in_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, options = write_recipe(tmp_path)
    mark = secrets.token_hex(8)
    for name, value in environment(**{MARK: mark}).items():  # of the processes of the stages
        monkeypatch.setenv(name, value)
    out, log = tmp_path / "out", tmp_path / "log"
    held = of_stage("second", fault("hold", step=2))
    recipe = get_context("fork").Process(target=_recipe, args=(log, str(path), *options, *held))
    recipe.start()
    assert recipe.pid is not None
    try:
        rows = out / "second" / "metrics.jsonl"
        while not (rows.exists() and rows.read_text().count("\n") >= 2):
            assert recipe.is_alive(), log.read_text()
            time.sleep(0.05)
        os.kill(recipe.pid, signal.SIGTERM)
        recipe.join(WITHIN_S)
        assert recipe.exitcode not in (0, None)
        assert processes({f"{MARK}={mark}"}) == []
    finally:
        recipe.kill()
        for pid in processes({f"{MARK}={mark}"}):
            os.kill(pid, signal.SIGKILL)
    assert "stage 2/2 second: ended with exit code" in log.read_text()
    assert sorted(each.name for each in (out / "recipe").iterdir()) == ["first.json"]

    monkeypatch.setattr(sys, "argv", ["inbatch recipe", str(path), *options])
    code, said = main(), "".join(capfd.readouterr())
    assert code == 0, said
    assert "stage 1/2 first: done before" in said
    assert "step 1/4" not in said, "it goes on from its checkpoint"
    trained = [row["step"] for row in metrics(out / "second") if "train/loss" in row]
    assert trained == list(range(1, STEPS + 1))
    assert (out / "second" / "model" / "README.md").exists()
    assert sorted(each.name for each in (out / "recipe").iterdir()) == ["first.json", "second.json"]
