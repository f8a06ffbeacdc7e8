"""`inbatch import` from its command line: files, directories, JSON, and cards of inbatch itself."""

# ruff: noqa: E501 - long expressions

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

from helpers.imported import at, body, of_file, settings
from helpers.runs import CONF_DIR, TINY, compose_run, run_train, write_triplets
from inbatch.cli import import_run
from inbatch.config.check import check_config
from inbatch.export.redaction import flatten
from inbatch.migration import read_source
from inbatch.run.train import train

CARDS = ("prostheses_mnrl", "supplies_minilm_mnrl", "phones_contrastive", "terms_cosine", "esci_cached_gist")  # fmt: skip
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["inbatch import", *arguments])
        code = import_run.main()
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with settings of all kinds, and its card."""
    folder = tmp_path_factory.mktemp("finished")
    return run_train(
        f"data.train.offers={write_triplets(folder / 'train.jsonl', 40)}",
        f"data.eval={write_triplets(folder / 'dev.jsonl', 20, seed=50)}",
        *("loss=matryoshka", "loss.dims=[32,16]", "loss.loss.temperature=0.1", "sampler=batch"),
        *("evaluation=triplet", "optimizer.betas=[0.8,0.99]", "schedule=cosine", "seed=7"),
        *("encoder.prompts={query: 'a_b: '}", "gradcache=rows", "global_batch_size=8"),
        *("trainer.max_steps=3", "clip_norm=null", "card.language=[en,de]"),
        f"output_dir={folder / 'run'}",
    )


OF_A_RUN = ("data.train", "data.eval", "evaluation.evaluators", "name", "output_dir", "resume")


def comparable(values: dict[str, Any]) -> dict[str, Any]:
    """What does not name a file of one run."""
    for key in OF_A_RUN:
        *folders, last = key.split(".")
        node = values
        for folder in folders:
            node = node[folder]
        node.pop(last, None)
    return values


@pytest.mark.parametrize("part", ["model/README.md", "model", "config.yaml", "."])
def test_a_run_of_inbatch_gives_its_own_settings(tmp_path: Path, finished: Path, part: str) -> None:
    experiment = of_file(finished / part)
    found = settings(experiment, tmp_path, "trainer.accelerator=cpu")
    whole = yaml.safe_load((finished / "config.yaml").read_text())
    assert comparable(json.loads(json.dumps(found))) == comparable(whole)
    assert not experiment.notes
    assert str(finished) not in experiment.yaml


def test_import_run_card_and_import_again_is_the_same(tmp_path: Path, finished: Path) -> None:
    """What comes out of a card, three steps later comes out of the card of these."""
    data = write_triplets(tmp_path / "train.jsonl", 40)
    first = of_file(finished / "model" / "README.md")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "imported.yaml").write_text(first.yaml)
    needs = {need.partition(": ")[0] for need in first.needs}
    assert "data.train.offers.path" in needs
    given = [f"{key}={data}" for key in needs]
    composed = compose_run(f"hydra.searchpath=[file://{tmp_path}]", "experiment=imported", *given)
    composed.output_dir = str(tmp_path / "run")
    output = train(check_config(composed)).output_dir
    second = of_file(output / "model" / "README.md")
    assert body(second) == body(first)
    assert second.command == first.command


@pytest.mark.parametrize("name", CARDS)
def test_the_reference_cards_are_the_experiments_named_after_them(
    tmp_path: Path, real_data: Path, name: str
) -> None:
    """Equal in all that the cards tell: they name no base model, nor the languages."""
    experiment = of_file(real_data.parent / "reference_cards" / f"{name}.md")
    files = [
        "data.train=x.csv",
        *(["data.eval=x.csv"] if "data.eval" in experiment.command else []),
    ]
    wanted = asdict(check_config(compose_run(f"experiment={name}", *files)))
    found = settings(experiment, tmp_path, *files)
    for key in ("name", "output_dir", "card", "data", "encoder"):
        found.pop(key)
    if name == "esci_cached_gist":  # which does not name its guide
        assert found["guide"].pop("model") == "some.csv"
    for key, value in flatten(found).items():
        assert value == at(wanted, key), key
    encoder = body(experiment)["encoder"]
    for key in ("max_length", "pooling", "dense", "normalize"):
        told, expected = encoder.get(key), wanted["encoder"].get(key)
        assert told == expected or (told, expected) == (False, None), (
            key
        )  # none in the architecture
    assert not experiment.notes


def test_arguments_as_json(tmp_path: Path) -> None:
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "out"), per_device_train_batch_size=24, learning_rate=3e-5, max_steps=50, use_cpu=True,
        warmup_steps=5, batch_sampler="no_duplicates", eval_strategy="steps", eval_steps=20, report_to=[], label_smoothing_factor=0.1,
    )  # fmt: skip
    path = tmp_path / "training_args.json"
    path.write_text(arguments.to_json_string())
    experiment = of_file(path)
    found = body(experiment)
    expected = {
        "global_batch_size": 24,
        "optimizer.lr": 3e-5,
        "trainer.max_steps": 50,
        "schedule.warmup_steps": 5,
        "evaluation.every_steps": 20,
        "precision": "fp32",
    }
    assert {key: at(found, key) for key in expected} == expected
    assert [note for note in experiment.notes if not note.startswith("loss: ")] == [
        "label_smoothing_factor=0.1: no loss here predicts classes"
    ]
    settings(experiment, tmp_path)


def test_a_model_directory(tmp_path: Path, tiny_bert: Path) -> None:
    model = SentenceTransformer(
        str(tiny_bert), device="cpu", prompts={"query": "q: "}, similarity_fn_name="dot"
    )
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    (tmp_path / "model" / "training_args.bin").write_bytes(b"never read")
    experiment = of_file(tmp_path / "model")
    found = body(experiment)["encoder"]
    assert (found["pooling"], found["prompts"], found["similarity"]) == (
        "mean",
        {"query": "q: "},
        "dot",
    )
    assert any(note.startswith("training_args.bin: a pickle") for note in experiment.notes)


def test_the_file_and_what_is_said(tmp_path: Path, run: Run, finished: Path) -> None:
    card = shutil.copy(finished / "model" / "README.md", tmp_path / "README.md")
    code, out, err = run(str(card), "--name", "offers")
    assert code == 0
    assert out.startswith("# @package _global_\n# inbatch train experiment=offers ")
    assert "give: data.train.offers.path: " in err
    folder = tmp_path / "mine" / "experiment"
    code, out, err = run(str(card), "--output", str(folder))
    assert (code, out) == (0, "")
    written = folder / f"{tmp_path.name}.yaml"
    assert f"written: {written}\n" in err
    assert f"--config-dir {folder.parent}" in err.splitlines()[-1]
    before = written.read_text()
    code, _, err = run(str(card), "--output", str(folder))
    assert (code, written.read_text()) == (1, before)
    assert "is there already" in err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.md", None, "is not there"),
        ("training_args.bin", b"\x80\x04", "is a pickle"),
        ("bad.json", b"{", "is not JSON"),
        ("list.json", b"[1]", "is no object of arguments"),
        ("latin.md", "é".encode("latin-1"), "is not text in UTF-8"),
        ("bad.yaml", b"a: [", "is no configuration"),
        ("folder", None, "holds neither a model nor a card"),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path, run: Run, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    code, out, err = run(str(path))
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_the_name_of_an_experiment(run: Run, finished: Path) -> None:
    assert "is no name of a file" in run(str(finished), "--name", "../x")[2]
    assert import_run.name_of(finished / "model") == "run"
    assert read_source(finished).own is not None
    assert Path(CONF_DIR).is_dir()
    assert TINY
