"""The card of a run again, from what `card.json` holds."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.cards import example_card
from helpers.runs import TINY, run_train, write_triplets
from inbatch.cli import card as command
from inbatch.errors import ConfigError
from inbatch.export.card import render
from inbatch.export.card_data import CardData, CostCard, DatasetName, MergeCard, MergedModel
from inbatch.export.card_record import (
    as_fields,
    as_json,
    from_fields,
    rewrite_run_card,
    write_run_card,
)
from inbatch.folder.paths import RunFolder


def again(card: CardData) -> CardData:
    return from_fields(json.loads(as_json(as_fields(card))))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """The folder of a run with a card, a plot and a model of step 20."""
    folder = RunFolder(tmp_path / "run")
    folder.model.mkdir(parents=True)
    folder.plots.mkdir()
    (folder.model / "inbatch.json").write_text('{"step": 20}')
    plot = folder.plots / "loss.png"
    plot.write_bytes(b"image")
    write_run_card(example_card(), folder, plots=[plot])
    return folder


def readme(folder: RunFolder) -> Path:
    return folder.model / "README.md"


def test_every_field_comes_back() -> None:
    card = example_card(
        cost=CostCard(device_hours=0.5, kwh=None, num_texts=10, num_tokens=99, metric="m", value=1),
        merge=MergeCard(
            method="mean", models=[MergedModel(name="a", share=0.5)], notes=["another seed"]
        ),
        plots=("plots/loss.png",),
    )
    first = replace(
        card.evaluations[0], dataset=DatasetName("dev", "acme/offers", "abc"), before=None
    )
    card = replace(card, evaluations=[first, *card.evaluations[1:]])
    found = again(card)
    assert render(found) == render(card)
    assert found.evaluations[0].dataset == first.dataset
    assert found.sources[0].published == card.sources[0].published
    assert type(found.sources[0].stats["query"].min) is int  # "4 tokens", not "4.0 tokens"


def test_secrets_are_not_written() -> None:
    settings = {"hub": {"api_key": "abc123def"}, "note": "hf_" + "x" * 20}
    source = replace(example_card().sources[0], loss_parameters={"password": "abc123def"})
    card = example_card(
        hyperparameters=settings, non_default_hyperparameters=settings, sources=[source]
    )
    text = as_json(as_fields(card))
    assert "abc123def" not in text
    assert "hf_x" not in text
    assert render(again(card)) == render(card)


def test_the_card_is_written_again_with_its_plots(run: RunFolder) -> None:
    before = readme(run).read_bytes()
    record = run.card.read_bytes()
    assert b"plots/loss.png" in before
    readme(run).unlink()
    shutil.rmtree(run.model / "plots")
    assert rewrite_run_card(run) == readme(run)
    assert readme(run).read_bytes() == before
    assert (run.model / "plots" / "loss.png").read_bytes() == b"image"
    assert run.card.read_bytes() == record


def test_an_edited_card_is_kept_unless_told(run: RunFolder) -> None:
    before = readme(run).read_text()
    readme(run).write_text(f"{before}\nMy own words.\n")
    with pytest.raises(ConfigError, match=r"README.md was edited since .*: add --overwrite"):
        rewrite_run_card(run)
    assert "My own words." in readme(run).read_text()
    rewrite_run_card(run, overwrite=True)
    assert readme(run).read_text() == before


def test_what_is_changed_in_the_record_is_in_the_card(run: RunFolder) -> None:
    record = json.loads(run.card.read_text())
    record["card"]["model_name"] = "Another name"
    run.card.write_text(json.dumps(record))
    rewrite_run_card(run)
    assert "# Another name" in readme(run).read_text()
    rewrite_run_card(run)  # and knows the card that it has written


def test_a_model_of_another_step_is_refused(run: RunFolder) -> None:
    (run.model / "inbatch.json").write_text('{"step": 30}')
    with pytest.raises(ConfigError, match=r"is of step 30, and card\.json of step 20"):
        rewrite_run_card(run, overwrite=True)


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("card.json", r"holds no card\.json, which a run writes when it ends"),
        ("model", "holds no model"),
        ("plots", r"loss\.png is shown by the card and missing"),
    ],
)
def test_what_is_missing_is_said(run: RunFolder, missing: str, problem: str) -> None:
    path = run.path / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(ConfigError, match=problem):
        rewrite_run_card(run)


@pytest.mark.parametrize("text", ["{", "[]", '{"card": {"title": 1}}', '{"card": {}}'])
def test_another_file_is_refused(run: RunFolder, text: str) -> None:
    run.card.write_text(text)
    before = readme(run).read_bytes()
    with pytest.raises(ConfigError, match=r"card\.json does not hold what a card says"):
        rewrite_run_card(run)
    assert readme(run).read_bytes() == before


def test_a_run_leaves_what_its_card_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(
        run_train(
            *TINY,
            f"data.train={write_triplets(tmp_path / 'rows.jsonl', 12)}",
            f"data.eval={write_triplets(tmp_path / 'dev.jsonl', 6, seed=50)}",
            f"output_dir={tmp_path / 'run'}",
            "global_batch_size=6",
            "trainer.max_steps=2",
        )
    )
    before = readme(folder).read_bytes()
    readme(folder).unlink()
    monkeypatch.setattr(sys, "argv", ["inbatch card", str(folder.path)])
    command.main()
    assert readme(folder).read_bytes() == before
    assert f"written: {readme(folder)}\n" in capsys.readouterr().out

    readme(folder).write_text("mine")
    with pytest.raises(SystemExit) as ended:
        command.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    problem = "was edited since the run wrote it: add --overwrite to lose the edits"
    assert said == f"error: {readme(folder)} {problem}\n"
