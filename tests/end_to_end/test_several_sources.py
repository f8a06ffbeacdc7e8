"""Several sources: one per step or mixed, one loss or one each, on one and two ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.distributed import run
from helpers.runs import metrics, run_train, train_as_rank, weights, write_triplets
from helpers.tiny import tiny_texts
from inbatch.errors import ConfigError


def _options(folder: Path) -> list[str]:
    """Triplets and scored pairs under the demo's own keys."""
    write_triplets(folder / "triplets.jsonl", 40)
    with (folder / "scored.jsonl").open("w") as file:
        for number, (a, b) in enumerate(zip(tiny_texts(24, seed=5), tiny_texts(24, seed=6))):
            row = {"sentence1": a, "sentence2": b, "score": number / 24}
            file.write(json.dumps(row) + "\n")
    return [
        f"data.train.triplets={folder / 'triplets.jsonl'}",
        f"data.train.scored={folder / 'scored.jsonl'}",
        "global_batch_size=8",
        "+encoder.config.hidden_dropout_prob=0",
        "+encoder.config.attention_probs_dropout_prob=0",
    ]


LOSSES = [
    "~loss",
    "+loss.triplets._target_=inbatch.losses.MultipleNegativesRanking",
    "+loss.scored._target_=inbatch.losses.CoSENT",
]


@pytest.mark.parametrize("sampler", ["round_robin", "proportional"])
def test_each_source_trains_with_its_loss(tmp_path: Path, sampler: str) -> None:
    options = [*_options(tmp_path), *LOSSES, f"sampler={sampler}"]
    one = run_train(*options, f"output_dir={tmp_path / 'one'}")
    run(train_as_rank, 2, [*options, f"output_dir={tmp_path / 'two'}"])
    steps = {"round_robin": 6, "proportional": 8}[
        sampler
    ]  # 5 and 3 batches; the first stops at 3 each
    assert [row["step"] for row in metrics(one)] == list(range(1, steps + 1))
    a, b = ([row["train/loss"] for row in metrics(tmp_path / name)] for name in ("one", "two"))
    assert a == pytest.approx(b, abs=1e-5)


def test_rows_of_several_sources_in_one_batch(tmp_path: Path) -> None:
    options = _options(tmp_path)[:1]
    for number in (1, 2):
        path = write_triplets(tmp_path / f"{number}.jsonl", 24, seed=10 * number)
        options.append(
            f"{'' if number == 1 else '+'}data.train.{['triplets', 'more'][number - 1]}.path={path}"
        )
    options += ["global_batch_size=8", "sampler=proportional", "sampler.mixed=true"]
    options += [
        "+encoder.config.hidden_dropout_prob=0",
        "+encoder.config.attention_probs_dropout_prob=0",
    ]
    one = run_train(*options, f"output_dir={tmp_path / 'one'}")
    run(train_as_rank, 2, [*options, f"output_dir={tmp_path / 'two'}"])
    assert len(metrics(one)) == 6
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, rtol=1e-3, atol=2e-4)


def test_what_cannot_be_mixed_is_refused(tmp_path: Path) -> None:
    options = [*_options(tmp_path), "sampler=proportional", "sampler.mixed=true"]
    with pytest.raises(ConfigError, match="columns"):
        run_train(*options, f"output_dir={tmp_path / 'run'}")
    options[1] = options[1].replace("scored.jsonl", "triplets.jsonl")
    with pytest.raises(ConfigError, match="one loss for all sources"):
        run_train(
            *options, *LOSSES[:2], LOSSES[1].replace("triplets", "scored"), f"output_dir={tmp_path}"
        )
