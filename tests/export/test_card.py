"""The card as a whole: what readers, the hub and Python see of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from helpers.cards import (
    example_card,
    sts_evaluation,
    training_log,
    triplet_evaluation,
)
from inbatch.export.card import framework_versions, render, write_card
from inbatch.export.card_data import SourceCard

HEADINGS = """
# MiniLM for products
## Model Details
### Model Description
### Model Sources
### Full Model Architecture
## Usage
### Direct Usage (Sentence Transformers)
### Direct Usage (Transformers)
### Downstream Usage (Sentence Transformers)
### Out-of-Scope Use
## Evaluation
### Metrics
#### Triplet
#### Semantic Similarity
## Bias, Risks and Limitations
### Recommendations
## Training Details
### Training Datasets
### Training Hyperparameters
#### Non-Default Hyperparameters
#### All Hyperparameters
### Training Logs
### Framework Versions
## Citation
### BibTeX
#### Sentence Transformers
#### GISTEmbedLoss
#### CoSENTLoss
#### GradCache
## Glossary
## Model Card Authors
## Model Card Contact
""".strip().split("\n")


def _table_rows(text: str, first_cell: str) -> list[list[str]]:
    """Cells of the table whose header starts with a cell."""
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.split("|")[1:2] == [first_cell])
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def _section(text: str, heading: str) -> str:
    return text.split(f"\n{heading}\n")[1].split("\n#")[0]


def test_headings_are_those_that_readers_know_and_in_order() -> None:
    lines = render(example_card()).split("\n")
    places = [lines.index(heading) for heading in HEADINGS]
    assert places == sorted(places)


def test_nothing_of_the_template_is_left_and_no_gap_is_wide() -> None:
    for card in (example_card(), example_card(evaluations=(), training_log=(), hardware=None)):
        text = render(card)
        assert "{%" not in text
        assert "{{" not in text
        assert "\n\n\n" not in text


def test_sections_without_content_are_left_out() -> None:
    text = render(
        example_card(
            evaluations=(),
            training_log=(),
            hyperparameters={},
            hardware=None,
            training_time_s=None,
            evaluation_time_s=None,
            versions={},
            code_version=None,
        )
    )
    for heading in ("Evaluation", "Training Logs", "Training Hyperparameters", "Training Time"):
        assert not re.search(rf"^#+ {heading}$", text, re.MULTILINE)
    for heading in ("Training Hardware", "Framework Versions", "Training Curves"):
        assert heading not in text
    assert "nan" not in text.lower().split()


def test_metrics_that_are_not_finite_stay_out_of_the_model_index() -> None:
    evaluation = replace(sts_evaluation(), metrics={"sts_dev_a": float("nan"), "sts_dev_b": 0.5})
    text = render(example_card(evaluations=(evaluation,)))
    assert [r.metric_type for r in ModelCard(text).data.eval_results] == ["b"]
    assert ["a", "nan"] in _table_rows(text, " Metric ")


def test_evaluations_before_and_after_with_the_primary_metric_bold() -> None:
    text = render(example_card())
    rows = _table_rows(_section(text, "#### Triplet"), " Metric              ")
    assert rows[0] == ["Metric", "Before training", "After training"]
    assert rows[2:] == [
        ["**cosine_accuracy**", "**0.6414**", "**0.8100**"],
        ["dot_accuracy", "0.3664", "0.7000"],
    ]
    rows = _table_rows(_section(text, "#### Semantic Similarity"), " Metric              ")
    assert rows[0] == ["Metric", "Value"]
    assert rows[-1] == ["**spearman_cosine**", "**0.8458**"]


def test_evaluators_that_differ_in_their_data_alone_share_a_table() -> None:
    cards = (triplet_evaluation(), sts_evaluation(), triplet_evaluation("cpv", after=0.9))
    text = render(example_card(evaluations=cards))
    assert text.count("#### Triplet") == 1
    section = _section(text, "#### Triplet")
    assert "* Datasets: `esci-dev` and `cpv`" in section
    row = _table_rows(section, " Metric              ")[2]
    assert row == ["**cosine_accuracy**", "**0.6414 → 0.8100**", "**0.6414 → 0.9000**"]


def test_log_table_bolds_the_saved_step() -> None:
    text = render(example_card())
    rows = _table_rows(_section(text, "### Training Logs"), " Epoch      ")
    assert rows[0] == [
        "Epoch",
        "Step",
        "Training Loss",
        "esci-dev_cosine_accuracy",
        "sts_dev_spearman_cosine",
    ]
    assert [row for row in rows if "**" in row[0]] == [
        ["**1.0000**", "**20**", "**0.3311**", "**0.8000**", "**0.8400**"]
    ]
    assert ["0.0000", "0", "-", "0.6414", "0.6814"] in rows
    assert "The bold row denotes the saved checkpoint." in text
    assert "bold row" not in render(example_card(best_step=None))


@pytest.mark.parametrize(("num_steps", "folded"), [(80, False), (150, True), (5000, True)])
def test_long_logs_are_folded_and_thinned(num_steps: int, folded: bool) -> None:
    best = 7 * num_steps // 10
    card = example_card(training_log=training_log(num_steps), best_step=best)
    section = _section(render(card), "### Training Logs")
    steps = [row[1] for row in _table_rows(section, next(_first_cells(section)))[2:]]
    assert ("<details>" in section) == folded
    assert len(steps) == min(200, num_steps + 1)
    assert {"0", f"**{best}**", str(num_steps)} <= set(steps)
    shown = [int(step.strip("*")) for step in steps]
    assert shown == sorted(shown)
    assert sum(step % 10 == 0 for step in shown) >= min(95, num_steps // 10)  # evaluations first
    assert ("steps are shown" in section) == (num_steps == 5000)


def _first_cells(section: str):
    return (line.split("|")[1] for line in section.split("\n") if line.startswith("| Epoch"))


def test_sources_say_size_columns_statistics_samples_and_loss() -> None:
    text = render(example_card())
    section = _section(text, "#### products")
    assert "* Size: 9,090 training samples" in section
    assert (
        "* Columns: <code>query</code>, <code>positive</code>, and <code>negative</code>" in section
    )
    assert "first 3 samples" in section
    assert (
        "<ul><li>min: 8 tokens</li><li>mean: 19.33 tokens</li><li>max: 30 tokens</li></ul>"
        in section
    )
    assert "<code>adidas Coast Star, white, 6 M US</code>" in section
    assert "losses.html#cachedgistembedloss" in section
    assert '"temperature": 0.01' in section
    scored = _section(text, "#### sts_dev")
    assert "* Size: 1,500 training samples" in scored
    assert "<li>mean: 0.5</li>" in scored


def test_loss_without_caching_and_a_loss_of_the_user() -> None:
    assert "loss:GISTEmbedLoss" in ModelCard(render(example_card(gradient_caching=False))).data.tags
    own = SourceCard(name="own", size=7, columns=("a", "b"), loss="MyLoss")
    text = render(example_card(sources=(own,)))
    assert "loss:MyLoss" in ModelCard(text).data.tags
    assert "* Loss: <code>MyLoss</code>\n" in text


def test_settings_hold_no_secret() -> None:
    card = example_card(
        hyperparameters={
            "logger": {"api_key": "k-123", "url": "https://ada:pw-123@host/x"},
            "hub_token": "t-123",
            "gradcache": {"chunk_tokens": 8192},
            "note": "uses hf_abcdefghijklmnopqrstuvwx",
        },
        non_default_hyperparameters={"auth": {"password": "p-123"}},
    )
    text = render(card)
    assert not re.search(r"k-123|t-123|p-123|pw-123|hf_abc", text)
    assert "- `gradcache.chunk_tokens`: 8192" in text


def test_write_card_copies_plots_and_leaves_no_half_file(tmp_path: Path) -> None:
    image = tmp_path / "run" / "learning_rate.png"
    image.parent.mkdir()
    image.write_bytes(b"png")
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    path = write_card(example_card(), model_dir, plots=[image])
    again = write_card(example_card(), model_dir, plots=[model_dir / "plots" / image.name])
    assert path == again == model_dir / "README.md"
    assert (model_dir / "plots" / "learning_rate.png").read_bytes() == b"png"
    assert "![Learning rate](plots/learning_rate.png)" in path.read_text(encoding="utf-8")
    assert sorted(p.name for p in model_dir.iterdir()) == ["README.md", "plots"]
    assert ModelCard.load(path).data.pipeline_tag == "sentence-similarity"


def test_versions_are_those_in_use() -> None:
    import torch

    versions = framework_versions()
    assert versions["PyTorch"].split("+")[0] == torch.__version__.split("+")[0]
    assert next(iter(versions)) == "Python"
