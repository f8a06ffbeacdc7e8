"""What changes how a step runs must not change its update."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.distributed import run
from helpers.keystone import (
    LOSSES,
    STRATEGIES,
    distributed,
    fit,
    make_encoder,
    make_step,
    quiet,
    reference,
    relative_error,
)
from inbatch.compat import num_compiled_graphs
from inbatch.encoder import Encoder
from inbatch.strategies import DDP

CACHED = {"chunk_rows": 5, "keep_gib": 0}


def _train(
    rank: int, world_size: int, path: Path, strategy: str, options: dict[str, Any]
) -> dict[str, torch.Tensor]:
    quiet()
    options = {"num_rows": 12, "num_steps": 2, "dtype": torch.float32, **options}
    return distributed(rank, world_size, path, STRATEGIES[strategy], LOSSES["gist"], **options)


def _error(
    path: Path,
    strategy: str,
    options: dict[str, Any],
    *,
    num_steps: int = 2,
    world_size: int = 2,
    **wanted: Any,
) -> float:
    found = run(_train, world_size, path, strategy, {**CACHED, **options})[0]
    start = {n: p.detach().clone() for n, p in make_encoder(path, torch.float32).named_parameters()}
    update = reference(path, LOSSES["gist"], 12, num_steps, torch.float32, **wanted)
    return relative_error(found, update, start)


# Stages 1 and 2 of DeepSpeed are one class here, and differ in what they shard.
EACH = pytest.mark.parametrize(
    "strategy", [name for name in STRATEGIES if name != "deepspeed_stage_1"]
)


@EACH
def test_accumulated_batches(tiny_bert: Path, strategy: str) -> None:
    error = _error(tiny_bert, strategy, {"num_steps": 4, "accumulate": 2}, num_steps=2)
    assert error <= 5e-6


def test_accumulation_ends_with_what_is_left(tiny_bert: Path) -> None:
    error = _error(tiny_bert, "ddp", {"num_steps": 3, "accumulate": 2}, num_steps=2)
    assert error <= 5e-6


@EACH
def test_clipping_by_the_global_norm(tiny_bert: Path, strategy: str) -> None:
    error = _error(tiny_bert, strategy, {"clip_norm": 0.1}, clip_norm=0.1)
    assert error <= 2e-5  # a clipped update is smaller, so its float32 rounding weighs more


@EACH
def test_frozen_parameters_stay(tiny_bert: Path, strategy: str) -> None:
    options = {"freeze": ["embeddings", r"layer\.0\."]}
    error = _error(tiny_bert, strategy, {"encoder_options": options}, encoder_options=options)
    assert error <= 5e-6


@EACH
def test_gradient_checkpointing(tiny_bert: Path, strategy: str) -> None:
    options = {"encoder_options": {"gradient_checkpointing": True}}
    assert _error(tiny_bert, strategy, options) <= 5e-6


def _states(rank: int, world_size: int, path: Path, strategy: str) -> list[str]:
    return [*_train(rank, world_size, path, strategy, {"num_steps": 1})]


@EACH
def test_the_whole_state_is_held_by_rank_0_alone(tiny_bert: Path, strategy: str) -> None:
    first, *others = run(_states, 3, tiny_bert, strategy)
    assert first == [*dict(make_encoder(tiny_bert, torch.float32).named_parameters())]
    assert others == [[], []]


def _compiled(rank: int, world_size: int, path: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The backend is the eager one, which compiles no code."""
    quiet()
    eager = partialmethod(Encoder.compile_backbone, backend="eager")
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(Encoder, "compile_backbone", eager)
        monkey.setitem(STRATEGIES, "ddp", DDP(timeout_s=60, bucket_mib=0.01))
        before = num_compiled_graphs()
        state = _train(rank, world_size, path, "ddp", {**CACHED, "compile": True})
        return state, num_compiled_graphs() - before


def test_compiled_under_ddp_with_small_buckets(tiny_bert: Path) -> None:
    """Nor are graphs split at buckets: there is one with and one without gradient."""
    torch._dynamo.reset()
    found, num_graphs = run(_compiled, 2, tiny_bert)[0]
    start = {
        n: p.detach().clone() for n, p in make_encoder(tiny_bert, torch.float32).named_parameters()
    }
    wanted = reference(tiny_bert, LOSSES["gist"], 12, 2, torch.float32)
    assert relative_error(found, wanted, start) <= 5e-6
    assert num_graphs == 2


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_bf16_autocast_reaches_both_passes(tiny_bert: Path, strategy: str) -> None:
    cached = _error(tiny_bert, strategy, {"precision": "bf16-mixed"})
    assert 1e-5 < cached < 5e-2


def _dropout(
    rank: int, world_size: int, path: Path, strategy: str, keep_gib: float | None
) -> dict[str, torch.Tensor]:
    quiet()
    torch.manual_seed(rank)
    return distributed(
        rank,
        world_size,
        path,
        STRATEGIES[strategy],
        LOSSES["multiple_negatives_ranking"],
        num_rows=12,
        num_steps=2,
        dtype=torch.float64,
        chunk_rows=5,
        keep_gib=keep_gib,
    )


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_dropout_replays(tmp_path: Path, strategy: str) -> None:
    from helpers.tiny import save_tiny_bert

    path = save_tiny_bert(tmp_path, dropout=0.3)
    kept, cached = (run(_dropout, 2, path, strategy, keep)[0] for keep in (None, 0))
    start = {n: p.detach().clone() for n, p in make_encoder(path, torch.float64).named_parameters()}
    assert relative_error(cached, kept, start) <= 1e-10
    assert (
        relative_error(
            cached,
            reference(path, LOSSES["multiple_negatives_ranking"], 12, 2, torch.float64),
            start,
        )
        > 1e-3
    )


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed_stage_3"])
def test_attention_without_padding(tiny_bert: Path, strategy: str) -> None:
    """The reference is padded."""
    assert _error(tiny_bert, strategy, {"encoder_options": {"attention": "varlen"}}) <= 5e-6


@pytest.mark.parametrize("keep_gib", [None, 0])
def test_nothing_is_padded_in_the_report(tiny_bert: Path, keep_gib: float | None) -> None:
    modules = {}
    for attention in ("varlen", "sdpa"):
        encoder = make_encoder(tiny_bert, torch.float32, attention=attention)
        module, batches = make_step(
            encoder, LOSSES["multiple_negatives_ranking"], 12, keep_gib=keep_gib
        )
        fit(module, batches, 1)
        modules[attention] = module.last_step
    packed, padded = modules["varlen"], modules["sdpa"]
    assert packed is not None
    assert padded is not None
    assert packed.num_padded_tokens == packed.num_tokens == padded.num_tokens
    assert padded.num_padded_tokens > padded.num_tokens
    torch.testing.assert_close(packed.loss, padded.loss)
