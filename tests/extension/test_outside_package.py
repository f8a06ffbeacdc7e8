"""A package outside of `src` brings a part of each kind, known by `_target_`, and trains on two ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.distributed import run
from helpers.keystone import distributed, make_encoder, quiet, reference, relative_error
from helpers.runs import metrics, run_train, train_as_rank, weights, write_triplets

HERE = Path(__file__).parent
PARTS = (
    "data.train.format._target_=extension_parts.records.Questions",
    "data.train.format.mark=?",
    "loss=plain_infonce",
    "sampler=in_order",
    "optimizer=scaled_sgd",
    "schedule=stairs",
    "evaluation=norm",
    "encoder.pooling=extension_parts.training.second_token",
    "++encoder.config.hidden_dropout_prob=0",
    "++encoder.config.attention_probs_dropout_prob=0",
    "global_batch_size=12",
    "trainer.max_epochs=2",
    f"hydra.searchpath=[file://{HERE / 'extension_parts' / 'conf'}]",
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def _options(folder: Path) -> list[str]:
    rows = write_triplets(folder / "rows.jsonl")
    pairs = [json.loads(line) for line in rows.read_text().splitlines()]
    records = [{"ask": pair["query"], "reply": pair["positive"]} for pair in pairs]
    rows.write_text("\n".join(map(json.dumps, records)))
    return [f"data.train={rows}", *PARTS]


def test_two_ranks_with_own_parts_end_as_one(tmp_path: Path) -> None:
    options = _options(tmp_path)
    one = run_train(*options, f"output_dir={tmp_path / 'one'}")
    several = tmp_path / "several"
    run(train_as_rank, 2, [*options, "strategy=average_once", f"output_dir={several}"])
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(several)[name], tensor, rtol=1e-4, atol=1e-6)
    rows = [[row for row in metrics(folder) if "train/loss" in row] for folder in (one, several)]
    assert [row["train/lr"] for row in rows[0]] == [row["train/lr"] for row in rows[1]]
    assert len(rows[0]) == 8  # the sampler's four batches in each epoch
    assert any("norm_mean" in key for row in metrics(several) for key in row)
    card = (several / "model" / "README.md").read_text()
    assert "loss:PlainInfoNCE" in card
    assert "@misc{plain" in card
    config = (several / "config.yaml").read_text()
    assert "extension_parts.strategy.AverageOnce" in config


def _keystone(rank: int, world_size: int, path: Path) -> dict[str, torch.Tensor]:
    from extension_parts.loss import PlainInfoNCE  # type: ignore[import-not-found]
    from extension_parts.strategy import AverageOnce  # type: ignore[import-not-found]

    quiet()
    options = {"num_rows": 11, "num_steps": 2, "chunk_rows": 4, "keep_gib": 0}
    return distributed(
        rank, world_size, path, AverageOnce(), PlainInfoNCE(), dtype=torch.float64, **options
    )


def test_the_keystone_holds_for_an_own_loss_and_strategy(tiny_bert: Path) -> None:
    from extension_parts.loss import PlainInfoNCE

    found = run(_keystone, 2, tiny_bert)[0]
    start = {n: p.detach() for n, p in make_encoder(tiny_bert, torch.float64).named_parameters()}
    wanted = reference(tiny_bert, PlainInfoNCE(), 11, 2, torch.float64)
    assert relative_error(found, wanted, start) <= 1e-10
