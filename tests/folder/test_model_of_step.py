"""The exported model is that of the step that the checkpoint knows of."""

from __future__ import annotations

from pathlib import Path

from inbatch.folder.model import forget_older_models, put_model, settle_model, step_of
from inbatch.folder.paths import RunFolder


def _put(folder: RunFolder, step: int) -> None:
    put_model(folder, lambda path: (path / "weights").write_text(str(step)) and None, step=step)
    assert (folder.model / "weights").read_text() == str(step)
    assert step_of(folder.model) == step


def _names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_the_one_before_stays_until_a_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    _put(folder, 10)
    forget_older_models(folder)  # a checkpoint of step 10
    for step in (20, 30):
        _put(folder, step)
        assert _names(folder) == [".model.10.before", "model"]
    forget_older_models(folder)
    assert _names(folder) == ["model"]


def test_a_resumed_run_has_its_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (10, 20, 30):
        _put(folder, step)
    assert settle_model(folder, 10)
    assert (folder.model / "weights").read_text() == "10"
    assert _names(folder) == ["model"]


def test_a_kill_between_two_renames(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    _put(folder, 10)
    _put(folder, 20)
    folder.model.rename(tmp_path / ".model.0a1b.new")
    assert settle_model(folder, 10)
    assert step_of(folder.model) == 10


def test_a_model_of_no_known_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not settle_model(folder, 10)
    _put(folder, 20)
    assert not settle_model(folder, 10)
    assert step_of(folder.model) == 20
    (folder.model / "inbatch.json").write_text("{")
    assert step_of(folder.model) is None
