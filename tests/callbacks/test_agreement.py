"""Ranks that were given different things do not train."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from watched_run import WatchedModule

from distributed import run
from inbatch.callbacks.agreement import Agreement, digest
from inbatch.errors import ConfigError


def fit(rank: int, world_size: int, facts: dict[str, list[Any]]) -> str | None:
    """Train a step; what was refused, if anything."""
    given = {name: (lambda value=values[rank]: value) for name, values in facts.items()}
    trainer = Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp",
        max_steps=1,
        logger=False,
        callbacks=[Agreement(given)],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    module = WatchedModule(total_steps=1)
    try:
        trainer.fit(module, DataLoader(list(torch.zeros(2 * world_size, 1)), batch_size=1))
    except ConfigError as error:
        return f"{error} ({module.num_batches} batches)"
    return None


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"plan": [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2}]}, None),
        ({"plan": [1, 1, 2], "tokenizer": ["x", "x", "x"]}, "rank 2 has another plan than rank 0"),
        (
            {"plan": [1, 2, 2], "tokenizer": ["x", "y", "x"]},
            "rank 1 has another plan and another tokenizer than rank 0",
        ),
    ],
)
def test_ranks_compare_what_they_have(facts: dict[str, list[Any]], named: str | None) -> None:
    results = run(fit, 3, facts)
    for result in results:  # every rank ends, so none waits for the others
        if named is None:
            assert result is None
        else:
            assert result is not None
            assert result.startswith(f"{named}: give all nodes")
            assert result.endswith("(0 batches)")


def test_a_digest_depends_on_values_alone() -> None:
    assert digest({"a": [1, 2], "b": None}) == digest({"b": None, "a": [1, 2]})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
    assert -(2**63) <= digest("x") < 2**63
