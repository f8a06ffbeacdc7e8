"""Columns without a role that look as if they mattered are named, with the key that gives them one."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.runs import run_train
from helpers.tiny import tiny_texts
from inbatch.data.report.build import build_report
from inbatch.data.report.unused import looks_like_label, looks_like_negative
from inbatch.data.sources.load import Source
from inbatch.losses import (
    CoSENT,
    EmbeddingMSE,
    GlobalOrthogonalRegularization,
    Matryoshka,
    WeightedSum,
)
from inbatch.losses.angle import AnglE
from inbatch.losses.base import Loss
from inbatch.losses.contrastive import Contrastive
from inbatch.losses.multiple_negatives import MultipleNegativesRanking
from inbatch.losses.triplet import Triplet

PAIRS = {"query": ["a", "b", "c", "d"], "positive": ["e", "f", "g", "h"]}
IN_BATCH = MultipleNegativesRanking()


def warnings(loss: Loss, **columns: list[object]) -> list[str]:
    source = Source.from_columns("train", {**PAIRS, **columns})
    return [
        line
        for line in build_report([source], losses={"train": loss}).warnings
        if "role" in line or "labels" in line
    ]


@pytest.mark.parametrize(
    "name", ["is_match", "target", "relevanceScore", "gold_label", "Human Score"]
)
def test_a_label_without_role(name: str) -> None:
    (line,) = warnings(IN_BATCH, **{name: [0, 1, 0, 1]})
    assert f"'{name}'" in line
    assert f"data.columns.label={name}" in line
    assert "every row is trained as a match" in line


def test_labels_that_the_loss_does_not_use() -> None:
    for loss in (IN_BATCH, Matryoshka(IN_BATCH, dims=(2,)), Triplet()):
        (line,) = warnings(loss, label=[0, 1, 0, 1])
        assert "column 'label'" in line
        assert warnings(loss, label=[1, 1, 1, 1]) == ["all labels of source 'train' are 1: a loss on "
            "labels learns nothing."]  # fmt: skip
    assert warnings(Contrastive(), label=[0, 1, 0, 1]) == []
    assert warnings(AnglE(), label=[0, 1, 0, 1]) == []


def test_labels_that_a_part_of_a_sum_does_not_use() -> None:
    labels: list[object] = [0, 1, 0, 1]
    (line,) = warnings(WeightedSum([CoSENT(), IN_BATCH]), label=labels)
    assert "not used by loss MultipleNegativesRanking" in line
    for other in (GlobalOrthogonalRegularization(), EmbeddingMSE()):  # take no row for a match
        assert warnings(WeightedSum([CoSENT(), other]), label=labels) == []


def test_negatives_that_are_not_taken() -> None:
    texts = ["i", "j", "k", "l"]
    (line,) = warnings(IN_BATCH, negative=texts, negative_text=texts, otherNegative=texts)
    assert line == (
        "columns 'negative_text', 'otherNegative' of source 'train' have no role and look like negatives, "
        "which no loss sees: set data.columns.negatives=[negative,negative_text,otherNegative]."
    )
    assert warnings(Triplet(), negative=texts, negative_text=texts) == [], "it takes one"


def test_other_columns_are_left_in_peace() -> None:
    for name in ("id", "brand", "pos_scores", "neg_scores", "title", "language", "price"):
        assert not looks_like_label(name), name
        assert not looks_like_negative(name), name
    assert warnings(IN_BATCH, id=[1, 2, 3, 4], brand=["x", "y", "z", "w"]) == []


def test_the_terminal_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [tiny_texts(16, seed=seed, min_words=3) for seed in range(2)]
    rows = "".join(f"{a},{b},{i % 2}\n" for i, (a, b) in enumerate(zip(*columns, strict=True)))
    (tmp_path / "pairs.csv").write_text(f"query,positive,is_match\n{rows}")
    run_train(
        f"data.train={tmp_path / 'pairs.csv'}",
        "global_batch_size=8",
        "trainer.max_steps=1",
        f"output_dir={tmp_path / 'run'}",
    )
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "is_match" in line]
    assert line.startswith("data  column 'is_match' of source 'train' has no role")
    assert "data.columns.label=is_match" in line
    assert "is_match' of source" in (tmp_path / "run" / "data_report.md").read_text()
