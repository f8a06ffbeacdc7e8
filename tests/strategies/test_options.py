"""What changes how a step runs must not change its update."""

from __future__ import annotations

import json
from functools import partialmethod
from pathlib import Path
from shutil import copytree
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
    start_of,
)
from inbatch.compat import num_compiled_graphs
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.strategies import DDP

ROWS = 8
CACHED = {"chunk_rows": 7, "keep_gib": 0}  # two chunks of 12 texts on each of two ranks
FREEZE = {"freeze": ["embeddings", r"layer\.0\."]}


def _train(
    rank: int, world_size: int, path: Path, strategy: str, options: dict[str, Any]
) -> dict[str, torch.Tensor]:
    quiet()
    options = {"num_rows": ROWS, "num_steps": 2, "dtype": torch.float32, **options}
    return distributed(rank, world_size, path, STRATEGIES[strategy], LOSSES["gist"], **options)


def _start(path: Path) -> dict[str, torch.Tensor]:
    return start_of(path, LOSSES["gist"], torch.float32)


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
    start = _start(path)
    update = reference(path, LOSSES["gist"], ROWS, num_steps, torch.float32, **wanted)
    return relative_error(found, update, start)


# Options of a run, those of the reference, and the largest error.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "accumulated": ({"num_steps": 4, "accumulate": 2}, {}, 5e-6),
    "left over": ({"num_steps": 3, "accumulate": 2}, {}, 5e-6),
    # A clipped update is smaller, so its float32 rounding weighs more.
    "clipped": ({"clip_norm": 0.1}, {"clip_norm": 0.1}, 2e-5),
    "frozen": ({"encoder_options": FREEZE}, {"encoder_options": FREEZE}, 5e-6),
    "checkpointed": ({"encoder_options": {"gradient_checkpointing": True}}, {}, 5e-6),
    # The reference is padded.
    "without padding": ({"encoder_options": {"attention": "varlen"}}, {}, 5e-6),
}

# Stages 1 and 2 of DeepSpeed are one class here, and differ in what they shard.
EACH = pytest.mark.parametrize(
    "strategy",
    [
        "ddp",
        "fsdp",
        pytest.param("deepspeed_stage_2", marks=pytest.mark.exhaustive),
        pytest.param("deepspeed_stage_3", marks=pytest.mark.exhaustive),
    ],
)


@EACH
def test_the_update_is_that_of_one_process_with_each_option(tiny_bert: Path, strategy: str) -> None:
    start = _start(tiny_bert)
    for name, (options, of_reference, limit) in OPTIONS.items():
        if name == "left over" and strategy != "ddp":
            continue  # how many are left over is no strategy's matter
        found, other = run(_train, 2, tiny_bert, strategy, {**CACHED, **options})
        wanted = reference(tiny_bert, LOSSES["gist"], ROWS, 2, torch.float32, **of_reference)
        error = relative_error(found, wanted, start)
        assert error <= limit, f"{name}: {error:.1e}"
        assert [*found] == [*start]
        assert not other, "the whole state is held by rank 0 alone"


def _compiled(rank: int, world_size: int, path: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The backend traces both directions and compiles no code."""
    quiet()
    traced = partialmethod(TransformerEncoder.compile_backbone, backend="aot_eager")
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(TransformerEncoder, "compile_backbone", traced)
        monkey.setitem(STRATEGIES, "ddp", DDP(timeout_s=60, bucket_mib=0.01))
        before = num_compiled_graphs()
        state = _train(rank, world_size, path, "ddp", {**CACHED, "compile": True})
        return state, num_compiled_graphs() - before


@pytest.mark.exhaustive
def test_compiled_under_ddp_with_small_buckets(tiny_bert: Path, tmp_path: Path) -> None:
    """Nor are graphs split at buckets: there is one with and one without gradient."""
    one_layer = copytree(tiny_bert, tmp_path / "one_layer")  # of the two that would be traced
    config = json.loads((one_layer / "config.json").read_text())
    (one_layer / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    torch._dynamo.reset()
    found, num_graphs = run(_compiled, 2, one_layer)[0]
    wanted = reference(one_layer, LOSSES["gist"], ROWS, 2, torch.float32)
    assert relative_error(found, wanted, _start(one_layer)) <= 5e-6
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
