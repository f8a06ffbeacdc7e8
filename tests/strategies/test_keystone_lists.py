"""Rows with lists, on any ranks and under any strategy, give the update of one process with all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.distributed import run
from helpers.keystone import (
    STRATEGIES,
    collectives_of,
    distributed,
    quiet,
    reference,
    relative_error,
    start_of,
)
from helpers.ragged_batches import make_rows, scores_of
from inbatch.losses import (
    GIST,
    DistillKL,
    EmbeddingMSE,
    GlobalOrthogonalRegularization,
    InBatchKL,
    MarginMSE,
    Matryoshka,
    MultipleNegativesRanking,
    WeightedSum,
)
from inbatch.losses.base import Loss
from inbatch.strategies import SingleDevice

EXACT = 1e-10
ALL: Any = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
LOSSES: dict[str, Loss] = {
    "each": MultipleNegativesRanking(mask_duplicates=True),
    "all directions": MultipleNegativesRanking(
        temperature="learned",
        directions=ALL,
        positive_form="mean",
        negatives="own",
        mask_duplicates=False,
    ),
    "sum": MultipleNegativesRanking(positive_form="sum", mask_duplicates=True),
    "gist": GIST(temperature="learned", mask_duplicates=True),
    "mask margin": MultipleNegativesRanking(
        temperature="learned", directions=ALL, mask_margin=0.05, mask_duplicates=True
    ),
    "moments": GlobalOrthogonalRegularization(),
    "own scores": WeightedSum([MarginMSE(), DistillKL(), DistillKL(teacher="guide")]),
    "own scores of gathered rows": WeightedSum(
        [MultipleNegativesRanking(mask_duplicates=True), MarginMSE(similarity="cosine")]
    ),
    "embeddings": EmbeddingMSE(),
    "distribution": InBatchKL(
        teacher_temperature=0.02, directions=("query_to_doc", "query_to_query")
    ),
    "matryoshka": Matryoshka(
        MultipleNegativesRanking(mask_duplicates=False, temperature="learned"), dims=[32, 8]
    ),
}
CACHED: dict[str, Any] = {"chunk_rows": 5, "keep_gib": 0}


def _train(
    rank: int, world_size: int, path: Path, strategy: str, names: list[str], options: dict[str, Any]
) -> dict[str, dict[str, torch.Tensor]]:
    quiet()
    chosen = SingleDevice() if strategy == "single" else STRATEGIES[strategy]
    sizes = {"num_rows": 10, "num_steps": 2, "dtype": torch.float64, "lists": True, **options}
    return {
        name: distributed(rank, world_size, path, chosen, LOSSES[name], **sizes) for name in names
    }


def _errors(
    path: Path, world_size: int, strategy: str, names: list[str], **options: Any
) -> dict[str, float]:
    found = run(_train, world_size, path, strategy, names, options)[0]
    dtype, rows = options.get("dtype", torch.float64), options.get("num_rows", 10)
    return {
        name: relative_error(
            found[name],
            reference(path, LOSSES[name], rows, 2, dtype, lists=True),
            start_of(path, LOSSES[name], dtype),
        )
        for name in names
    }


def test_the_rows_are_what_the_tests_are_about() -> None:
    rows = make_rows(10)
    assert max(len(p) for _, p, _ in rows) > 2
    assert sum(not n for _, _, n in rows) > 1
    assert len(set(scores_of(rows).tolist())) > len(rows)


@pytest.mark.parametrize(("strategy", "world_size"), [("single", 1), ("ddp", 2), ("ddp", 3)])
@pytest.mark.parametrize("options", [{}, CACHED], ids=["direct", "cached"])
def test_update_equals_the_union_batch(
    tiny_bert: Path, strategy: str, world_size: int, options: dict[str, Any]
) -> None:
    errors = _errors(tiny_bert, world_size, strategy, list(LOSSES), **options)
    assert max(errors.values()) < EXACT, errors


@pytest.mark.parametrize("num_rows", [11, 2])
def test_uneven_last_batches_and_ranks_without_rows(tiny_bert: Path, num_rows: int) -> None:
    names = ["each", "gist", "own scores", "own scores of gathered rows"]
    errors = _errors(tiny_bert, 3, "ddp", names, num_rows=num_rows, **CACHED)
    assert max(errors.values()) < EXACT, errors


def test_ranks_ask_each_other_where_no_plan_counts(tiny_bert: Path) -> None:
    errors = _errors(tiny_bert, 3, "ddp", ["gist"], num_rows=7, counted=False)
    assert max(errors.values()) < EXACT, errors


def test_fsdp(tiny_bert: Path) -> None:
    errors = _errors(tiny_bert, 3, "fsdp", ["each", "gist", "mask margin"], num_rows=11, **CACHED)
    assert max(errors.values()) < EXACT, errors


def test_deepspeed(tiny_bert: Path) -> None:
    errors = _errors(
        tiny_bert, 2, "deepspeed_stage_2", ["each", "gist"], dtype=torch.float32, **CACHED
    )
    assert max(errors.values()) < 1e-5, errors  # a learned temperature is one number in float32


def _collectives(rank: int, world_size: int, path: Path, chunk_rows: int) -> dict[str, int]:
    quiet()
    return collectives_of(
        lambda: distributed(
            *(rank, world_size, path, STRATEGIES["ddp"], LOSSES["gist"]),
            num_rows=10,
            num_steps=2,
            dtype=torch.float32,
            chunk_rows=chunk_rows,
            keep_gib=0,
            lists=True,
        )
    )


def test_collectives_of_a_step(tiny_bert: Path) -> None:
    few, many = (run(_collectives, 2, tiny_bert, chunk_rows)[0] for chunk_rows in (20, 3))
    assert few == many
    # Data and embeddings, twice, and one of DDP's own, when it is set up.
    assert few["gloo:all_gather"] == 2 * 2 + 1
