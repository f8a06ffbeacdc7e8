"""A learned temperature, and labelled texts in groups, from the configuration to the card."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from helpers.runs import metrics, run_train, weights, write_triplets
from inbatch.errors import ConfigError


def write_texts(path: Path, labels: list[int]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"red shoe {label} size {n}", label] for n, label in enumerate(labels))
    return path


def test_a_learned_temperature_is_trained_logged_saved_and_not_exported(tmp_path: Path) -> None:
    rows = write_triplets(tmp_path / "triplets.jsonl", 32)
    out = run_train(
        f"data.train.triplets={rows}",
        "global_batch_size=8",
        "loss.temperature=learned",
        "loss.initial_temperature=0.1",
        "+learning_rate_mapping.log_scale=0.1",
        f"output_dir={tmp_path / 'out'}",
    )
    logged = [row["train/temperature"] for row in metrics(out) if "train/temperature" in row]
    assert logged[0] == pytest.approx(0.1)
    assert abs(logged[-1] / 0.1 - 1) > 0.05
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    (name,) = (name for name in checkpoint["state_dict"] if not name.startswith("encoder."))
    assert name == "loss_parameters.log_scale"
    assert not [name for name in weights(out) if "scale" in name]
    card = (out / "model" / "README.md").read_text()
    learned = float((-checkpoint["state_dict"][name]).exp())
    assert f'"learned_temperature": {learned:.5f}'.rstrip("0") in card


def test_labelled_texts_in_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [n % 6 for n in range(40)] + [77, 78]
    out = run_train(
        f"data.train={write_texts(tmp_path / 'texts.csv', labels)}",
        "loss=batch_hard_soft_margin_triplet",
        "sampler=group_by_label",
        "global_batch_size=8",
        f"output_dir={tmp_path / 'out'}",
    )
    assert "2 labels of source 'train' have one row" in capsys.readouterr().out
    rows = [row for row in metrics(out) if "train/loss" in row]
    assert len(rows) == 5  # the last of two groups
    assert all(row["train/active_share"] <= 1 for row in rows)
    assert "BatchHardSoftMarginTripletLoss" in (out / "model" / "README.md").read_text()


@pytest.mark.parametrize(("labels", "what"), [([1] * 9, "the same"), (list(range(9)), "different")])
def test_labels_that_make_no_triplet_are_refused(
    tmp_path: Path, labels: list[int], what: str
) -> None:
    with pytest.raises(ConfigError, match=f"labels of source 'train' are all {what}"):
        run_train(
            f"data.train={write_texts(tmp_path / 'texts.csv', labels)}",
            "loss=batch_hard_triplet",
            "global_batch_size=4",
            f"output_dir={tmp_path / 'out'}",
        )
