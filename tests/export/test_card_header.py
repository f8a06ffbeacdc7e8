"""The YAML header, as the hub's client reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from helpers.cards import example_card
from inbatch.export.card import render


def test_header_is_read_by_the_hub_client() -> None:
    data = ModelCard(render(example_card())).data
    assert data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "sentence-similarity"
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.language == ["en"]
    assert data.license == "apache-2.0"
    assert set(data.tags) == {
        "sentence-transformers",
        "sentence-similarity",
        "feature-extraction",
        "dense",
        "generated_from_trainer",
        "inbatch",
        "dataset_size:10590",
        "loss:CachedGISTEmbedLoss",
        "loss:CoSENTLoss",
        "products",
    }
    assert data.metrics == ["cosine_accuracy", "dot_accuracy", "pearson_cosine", "spearman_cosine"]
    assert len(data.widget) == 5
    assert all(len(example["sentences"]) == 3 for example in data.widget)


def test_model_index_holds_the_saved_model() -> None:
    data = ModelCard(render(example_card())).data
    assert data.model_name == "MiniLM for products"
    found = {(r.task_type, r.dataset_type, r.metric_type): r for r in data.eval_results}
    assert set(found) == {
        ("triplet", "esci-dev", "cosine_accuracy"),
        ("triplet", "esci-dev", "dot_accuracy"),
        ("semantic-similarity", "sts_dev", "pearson_cosine"),
        ("semantic-similarity", "sts_dev", "spearman_cosine"),
    }
    best = found["triplet", "esci-dev", "cosine_accuracy"]
    assert (best.metric_value, best.metric_name) == (0.81, "Cosine Accuracy")
    assert (best.task_name, best.dataset_name) == ("Triplet", "esci dev")


@pytest.mark.parametrize(
    "base", ["/home/ada/models/tiny", "pkg://some_package/model", "./tiny", None]
)
def test_base_model_is_named_in_the_header_only_if_the_hub_can_know_it(base: str | None) -> None:
    text = render(example_card(base_model=base))
    assert ModelCard(text).data.base_model is None
    assert "ada" not in text


def test_folder_that_looks_like_a_hub_name_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    card = example_card(base_model="models/tiny")
    assert ModelCard(render(card)).data.base_model == "models/tiny"
    monkeypatch.chdir(tmp_path)
    assert ModelCard(render(card)).data.base_model is None


def test_header_survives_hostile_text() -> None:
    hostile = "a: b\n---\n# |<b>& \x00\ud800 '\""
    card = example_card(model_name=hostile, license=hostile)
    card = replace(card, widget=tuple(replace(w, source_sentence=hostile) for w in card.widget))
    text = render(card)
    text.encode("utf-8")
    head = text.split("\n---\n")[0]
    data = yaml.safe_load(head.removeprefix("---\n"))
    assert data["widget"][0]["source_sentence"].startswith("a: b\n---\n# |<b>& ")
    assert ModelCard(text).data.pipeline_tag == "sentence-similarity"
