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

ROWS = 10
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


Case = tuple[str, dict[str, Any]]  # a loss and options


def _train(
    rank: int, world_size: int, path: Path, strategy: str, cases: list[Case]
) -> list[dict[str, torch.Tensor]]:
    quiet()
    chosen = SingleDevice() if strategy == "single" else STRATEGIES[strategy]
    sizes = {"num_rows": ROWS, "num_steps": 1, "dtype": torch.float64, "lists": True}
    return [
        distributed(rank, world_size, path, chosen, LOSSES[name], **{**sizes, **options})
        for name, options in cases
    ]


def _check(
    path: Path, world_size: int, strategy: str, cases: list[Case], limit: float = EXACT
) -> None:
    found = run(_train, world_size, path, strategy, cases)[0]
    errors = [
        relative_error(state, *_wanted(path, name, options))
        for (name, options), state in zip(cases, found, strict=True)
    ]
    assert max(errors) < limit, [(*case, error) for case, error in zip(cases, errors)]


def _wanted(path: Path, name: str, options: dict[str, Any]) -> tuple[dict[str, torch.Tensor], ...]:
    rows, steps = options.get("num_rows", ROWS), options.get("num_steps", 1)
    dtype, key = options.get("dtype", torch.float64), f"{path} {name} {rows} {steps}"
    if (key, dtype) not in _WANTED:
        loss = LOSSES[name]
        wanted = reference(path, loss, rows, steps, dtype, lists=True)
        _WANTED[key, dtype] = wanted, start_of(path, loss, dtype)
    return _WANTED[key, dtype]


_WANTED: dict[tuple[str, torch.dtype], tuple[dict[str, torch.Tensor], ...]] = {}


def test_the_rows_are_what_the_tests_are_about() -> None:
    rows = make_rows(10)
    assert max(len(p) for _, p, _ in rows) > 2
    assert sum(not n for _, _, n in rows) > 1
    assert len(set(scores_of(rows).tolist())) > len(rows)


@pytest.mark.parametrize(
    ("strategy", "world_size", "options"),
    [("single", 1, {}), pytest.param("ddp", 3, CACHED, marks=pytest.mark.exhaustive)],
    ids=["direct on one device", "cached on three ranks"],
)
def test_update_equals_the_union_batch(
    tiny_bert: Path, strategy: str, world_size: int, options: dict[str, Any]
) -> None:
    _check(tiny_bert, world_size, strategy, [(name, options) for name in LOSSES])


def test_kept_graphs_and_chunks_on_the_other_number_of_ranks(tiny_bert: Path) -> None:
    """One loss of each that gathers, or sees its own rows alone, or all moments; two steps."""
    names = ["all directions", "gist", "own scores", "moments"]
    two_steps = {"num_steps": 2}
    _check(tiny_bert, 1, "single", [(name, CACHED | two_steps) for name in names])
    _check(tiny_bert, 2, "ddp", [(name, two_steps) for name in names])


def test_uneven_last_batches_and_ranks_without_rows(tiny_bert: Path) -> None:
    names = ["each", "gist", "own scores", "own scores of gathered rows"]
    cases = [(name, {"num_rows": rows, **CACHED}) for name in names for rows in (11, 2)]
    _check(tiny_bert, 3, "ddp", cases)


def test_ranks_ask_each_other_where_no_plan_counts(tiny_bert: Path) -> None:
    _check(tiny_bert, 3, "ddp", [("gist", {"num_rows": 7, "counted": False})])


def test_fsdp(tiny_bert: Path) -> None:
    options = {"num_rows": 11, "num_steps": 2, **CACHED}
    _check(tiny_bert, 3, "fsdp", [(name, options) for name in ("gist", "mask margin")])


def test_deepspeed(tiny_bert: Path) -> None:
    options = {"dtype": torch.float32, "num_steps": 2, **CACHED}
    cases = [(name, options) for name in ("each", "gist")]
    _check(tiny_bert, 2, "deepspeed_stage_2", cases, limit=1e-5)  # a temperature is one number


def _collectives(rank: int, world_size: int, path: Path) -> list[dict[str, int]]:
    """Of two steps with few chunks and with many."""
    quiet()
    first, sizes = (rank, world_size, path, STRATEGIES["ddp"]), {"num_rows": ROWS, "num_steps": 2}
    options: dict[str, Any] = {"dtype": torch.float32, "keep_gib": 0, "lists": True}
    return [
        collectives_of(
            lambda rows=rows: distributed(
                *first, LOSSES["gist"], chunk_rows=rows, **sizes, **options
            )
        )
        for rows in (20, 3)
    ]


def test_collectives_of_a_step(tiny_bert: Path) -> None:
    few, many = run(_collectives, 2, tiny_bert)[0]
    assert few == many
    # Data and embeddings, twice, and one of DDP's own, when it is set up.
    assert few["gloo:all_gather"] == 2 * 2 + 1
