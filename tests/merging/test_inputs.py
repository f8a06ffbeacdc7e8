"""What the user may name to be merged: the best of a sweep, a run, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.tiny import save_tiny_bert
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.merging.inputs import find_ingredients
from inbatch.sweep.trials import Result, Trial, write_trial

VALUES = (0.5, 0.9, None, 0.7)  # of the trials; the third has none


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    model = build_encoder(str(save_tiny_bert(folder / "base" / "bert")))
    for number, value in enumerate(VALUES):
        trial = folder / "learning_rates" / str(number)
        model.save(trial / "model")
        result = Result(metric="dev_cosine_accuracy", value=value, step=3)
        write_trial(Trial(number=number, overrides=(), status="completed", result=result), trial)
    return folder / "learning_rates"


def test_the_best_of_a_sweep(sweep: Path) -> None:
    found = find_ingredients(str(sweep), best=2)
    assert [each.label for each in found] == ["learning_rates trial 1", "learning_rates trial 3"]
    assert [each.directory for each in found] == [sweep / n / "model" for n in ("1", "3")]


def test_runs_stand_for_their_models(sweep: Path) -> None:
    found = find_ingredients([str(sweep / "2"), f"{sweep}/[01]/model"], best=None)
    assert [each.directory for each in found] == [sweep / n / "model" for n in ("2", "0", "1")]
    (key, *_), first = found[0].weights.entries, found[0].weights
    assert torch.equal(first.read(key), found[1].weights.read(key))


def test_mistakes_are_named(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cut = tmp_path / "run" / "checkpoints" / "step-00000003.ckpt"
    cut.parent.mkdir(parents=True)
    cut.write_bytes(b"PK")
    for models, best, said in (
        (str(sweep), None, "best is not set, and models names a sweep: set best=3"),
        (str(sweep), 9, "best=9 is more than the 3 models with a metric"),
        (str(tmp_path / "empty"), None, "holds no model, run or sweep"),
        (f"{tmp_path}/*.ckpt", None, "matches nothing"),
        (str(cut), None, "is cut off, or no checkpoint"),
        ({"a": 1}, None, "is not a list of paths"),
    ):
        with pytest.raises(ConfigError) as refused:
            find_ingredients(models, best=best)
        assert said in str(refused.value)
