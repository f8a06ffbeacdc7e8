"""A static encoder on several ranks takes the update of one process with the union batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.distributed import run
from helpers.keystone import (
    STRATEGIES,
    distributed,
    make_encoder,
    quiet,
    reference,
    relative_error,
)
from helpers.tiny import tiny_tokenizer
from inbatch.encoder import build_static_encoder
from inbatch.losses import GIST, Matryoshka, MultipleNegativesRanking, SimilarityMSE
from inbatch.losses.base import Loss

LOSSES: dict[str, Loss] = {
    "mnrl": Matryoshka(MultipleNegativesRanking(), dims=[16, 8]),
    "gist": GIST(temperature=0.05),
    "distilled": SimilarityMSE(),
}
MODES: dict[str, dict[str, Any]] = {"whole": {}, "cached": {"chunk_rows": 5, "keep_gib": 0}}


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """A directory with random vectors and a head."""
    torch.manual_seed(0)
    tiny_tokenizer().save_pretrained(tmp_path / "words")
    encoder = build_static_encoder(
        tokenizer=str(tmp_path / "words"), dimension=12, dense={"out_features": 16}
    )
    encoder.save(tmp_path / "static")
    return tmp_path / "static"


def _train_all(
    rank: int, world_size: int, path: Path, strategy: str, dtype: torch.dtype
) -> dict[tuple[str, str], dict[str, torch.Tensor]] | None:
    quiet()
    settings: dict[str, Any] = {"num_rows": 11, "num_steps": 2, "dtype": dtype}
    found = {
        (name, mode): distributed(
            rank, world_size, path, STRATEGIES[strategy], loss, **settings, **MODES[mode]
        )
        for name, loss in LOSSES.items()
        for mode in MODES
    }
    return found if rank == 0 else None


@pytest.mark.parametrize(
    ("strategy", "dtype", "limit"),
    [
        ("ddp", torch.float64, 1e-10),
        ("fsdp", torch.float64, 1e-10),
        ("deepspeed_stage_2", torch.float32, 5e-6),
    ],
    ids=["ddp", "fsdp", "deepspeed"],
)
def test_update_equals_the_union_batch(
    static: Path, strategy: str, dtype: torch.dtype, limit: float
) -> None:
    found = run(_train_all, 2, static, strategy, dtype)[0]
    start = {n: p.detach().clone() for n, p in make_encoder(static, dtype).named_parameters()}
    for name, loss in LOSSES.items():
        wanted = reference(static, loss, 11, 2, dtype)
        for mode in MODES:
            error = relative_error(found[name, mode], wanted, start)
            assert error <= limit, f"{name}, {mode}: relative error {error:.1e}"
