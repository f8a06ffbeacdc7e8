"""Ranks that were given different things do not train."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from helpers.distributed import bare_trainer, run
from helpers.keystone import quiet
from helpers.runs import run_train, write_triplets
from helpers.watched_run import WatchedModule
from inbatch.callbacks.rank_consistency import RankConsistency, digest
from inbatch.errors import ConfigError


def fit(rank: int, world_size: int, facts: dict[str, list[Any]]) -> str | None:
    """Train a step; what was refused, if anything."""
    given = {name: (lambda value=values[rank]: value) for name, values in facts.items()}
    trainer = bare_trainer(world_size, max_steps=1, callbacks=[RankConsistency(given)])
    module = WatchedModule(total_steps=1)
    try:
        trainer.fit(module, DataLoader(list(torch.zeros(2 * world_size, 1)), batch_size=1))
    except ConfigError as error:
        return f"{error} ({module.num_batches} batches)"
    return None


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"plan": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, None),
        ({"plan": [1, 2], "tokenizer": ["x", "x"]}, "rank 1 has another plan than rank 0"),
        (
            {"plan": [1, 1, 2], "tokenizer": ["x", "x", "y"]},
            "rank 2 has another plan and another tokenizer than rank 0",
        ),
    ],
)
def test_ranks_compare_what_they_have(facts: dict[str, list[Any]], named: str | None) -> None:
    results = run(fit, len(facts["plan"]), facts)
    for result in results:  # every rank ends, so none waits for the others
        if named is None:
            assert result is None
        else:
            assert result is not None
            assert result.startswith(f"{named}: give all nodes")
            assert result.endswith("(0 batches)")


def go_on(
    rank: int, world_size: int, starts: list[list[Path]], options: list[str]
) -> list[str | None]:
    """Train where each rank sees a folder of its own as the output directory; what each start refused."""
    quiet()
    refused: list[str | None] = []
    for folders in starts:
        try:
            run_train(*options, f"output_dir={folders[rank]}")
            refused.append(None)
        except ConfigError as error:
            refused.append(str(error))
    return refused


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.exhaustive)])
def test_ranks_that_see_different_checkpoints_do_not_go_on(tmp_path: Path, strategy: str) -> None:
    data = write_triplets(tmp_path / "triplets.jsonl")
    options = [f"data.train.triplets={data}", "global_batch_size=8", f"strategy={strategy}"]
    options += ["trainer.max_epochs=5", "checkpoint.every_n_steps=1"]
    shared, other, copy = (tmp_path / name for name in ("shared", "other", "copy"))
    assert run(go_on, 2, [[shared] * 2], [*options, "trainer.max_steps=1"]) == [[None]] * 2
    shutil.copytree(shared, copy)
    assert run(go_on, 2, [[copy] * 2], [*options, "trainer.max_steps=2"]) == [[None]] * 2
    apart = [[shared, other], [other, shared], [shared, copy]]
    before = (shared / "metrics.jsonl").read_bytes()
    refused = run(go_on, 2, apart, [*options, "trainer.max_steps=6"])
    for rank, messages in enumerate(refused):
        assert messages == [
            "rank 1 has another checkpoint to resume from than rank 0: "
            f"set output_dir={str(folders[rank])!r} to one folder that all nodes see"
            for folders in apart
        ]
    assert (shared / "metrics.jsonl").read_bytes() == before
    assert run(go_on, 2, [[shared] * 2], [*options, "trainer.max_steps=2"]) == [[None]] * 2


def test_a_digest_depends_on_values_alone() -> None:
    assert digest({"a": [1, 2], "b": None}) == digest({"b": None, "a": [1, 2]})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
    assert -(2**63) <= digest("x") < 2**63
