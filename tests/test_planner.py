"""The plan against what autograd and torch really hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.sizes import BERT
from helpers.tiny import tiny_texts
from inbatch.batch.chunks import halve_chunks, make_chunks
from inbatch.device.memory import free_bytes
from inbatch.encoder import Encoder, build_encoder
from inbatch.gradcache import KeepBudget
from inbatch.run.auto_sizes import model_size
from inbatch.run.memory_plan import (
    GIB,
    MemoryPlan,
    Sharding,
    activation_bytes_per_token,
    choose,
    step_flop,
    step_memory,
    usual_chunk_tokens,
)
from inbatch.run.step_size import StepSize
from inbatch.strategies import World, own_device

STEP = StepSize(
    device="cuda",
    global_rows=4096,
    local_rows=1024,
    held_rows=4096,
    num_columns=3,
    text_tokens=32.0,
    guide_dimension=384,
    world_size=4,
)
WHOLE = {"num_blocks": 4, "optimizer_states": 2.0, "max_length": 512}


def plan(**changes: object) -> MemoryPlan:
    options = {"chunk_tokens": "auto", "keep_gib": "auto", "usable_bytes": 40 * GIB, **WHOLE}
    return choose(BERT, STEP, **{"sharding": Sharding(), **options, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("width", [64, 128])
def test_activations_are_what_autograd_saves(dropout: float, width: int) -> None:
    config = {"model_type": "bert", "hidden_size": width, "num_hidden_layers": 3}
    config |= {"intermediate_size": 4 * width, "num_attention_heads": 4}
    config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    texts = tiny_texts(64, min_words=20, max_words=20)
    encoder = build_encoder(
        config=config, tokenizer={"train": {"vocab_size": 300}}, texts=lambda: texts
    ).train()
    [chunk] = chunks_of(encoder, texts, chunk_tokens=None)
    budget = KeepBudget(1.0)
    with budget.measure(chunk.input_ids.numel(), list(encoder.parameters())):
        encoder(chunk)
    step = replace(STEP, device="cpu", text_tokens=float(chunk.input_ids.shape[1]))
    estimate = activation_bytes_per_token(model_size(encoder), step)
    assert estimate == pytest.approx(budget._bytes_per_token, rel=0.15)


def test_parts_of_memory_are_known_numbers() -> None:
    memory = step_memory(
        BERT, STEP, chunk_tokens=1024, optimizer_states=2.0, sharding=Sharding(optimizer=True)
    )
    assert memory.weights == memory.gradients == 4 * BERT.parameters
    assert memory.optimizer == 2 * 4 * BERT.parameters / 4  # four ranks
    assert memory.chunk == 1024 * activation_bytes_per_token(BERT, STEP)
    whole = step_memory(BERT, STEP, chunk_tokens=None, optimizer_states=2.0, sharding=Sharding())
    assert whole.chunk == 1024 * 3 * 32 * activation_bytes_per_token(BERT, STEP)
    assert "optimizer 0.82" in whole.describe()


def test_gradients_lie_beside_the_buckets_of_ddp() -> None:
    options = {"chunk_tokens": 1024, "optimizer_states": 2.0}

    def gradients(world_size: int, sharding: Sharding) -> float:
        step = replace(STEP, world_size=world_size)
        return step_memory(BERT, step, sharding=sharding, **options).gradients  # type: ignore[arg-type]

    assert gradients(4, Sharding()) == 2 * 4 * BERT.trainable
    assert gradients(1, Sharding()) == 4 * BERT.trainable
    assert gradients(4, Sharding(optimizer=True)) == 4 * BERT.trainable


def test_auto_fills_the_memory_and_no_more() -> None:
    small, large = plan(usable_bytes=6 * GIB), plan(usable_bytes=40 * GIB)
    for found, usable in ((small, 6), (large, 40)):
        assert found.memory.total <= usable * GIB * 1.001
    assert small.chunk_tokens is not None
    assert large.chunk_tokens is not None
    assert 512 <= small.chunk_tokens < large.chunk_tokens
    assert small.keep_gib is not None
    assert large.keep_gib is not None
    assert small.keep_gib < large.keep_gib
    assert small.flop > large.flop  # more is embedded twice
    hopeless = plan(usable_bytes=0)
    assert (hopeless.chunk_tokens, hopeless.keep_gib) == (512, 0.0)


@pytest.mark.parametrize(
    ("width", "tokens"), [(128, 131072), (384, 131072), (768, 32768), (1024, 18432), (4096, 8192)]
)
def test_a_gpu_takes_more_tokens_at_a_time_of_a_narrow_model(width: int, tokens: int) -> None:
    assert usual_chunk_tokens("cuda", width) == tokens
    assert usual_chunk_tokens("cpu", width) == 1024
    model = replace(BERT, width=width, layers=1, intermediate=4 * width)
    options = {"keep_gib": "auto", "usable_bytes": 400 * GIB, "sharding": Sharding(), **WHOLE}
    found = choose(model, STEP, chunk_tokens="auto", **options)  # type: ignore[arg-type]
    assert found.chunk_tokens == tokens


@pytest.mark.parametrize(
    ("bits", "sharding", "copies"),
    [(32, Sharding(), 0.0), (16, Sharding(), 2.0), (16, Sharding(parameters=True), 0.0)],
)
def test_casts_of_weights_are_counted(bits: int, sharding: Sharding, copies: float) -> None:
    step = replace(STEP, activation_bytes=bits // 8)
    memory = step_memory(BERT, step, chunk_tokens=1024, optimizer_states=2.0, sharding=sharding)
    weights = 4 * BERT.parameters / (4 if sharding.parameters else 1)
    assert memory.weights == weights + copies * (BERT.parameters - BERT.embedding_parameters)


def test_free_memory_of_a_gpu_is_what_no_process_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds some, and torch holds some for this one without using it."""
    asked = []

    def info(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return 30 * GIB, 80 * GIB

    monkeypatch.setattr(torch.cuda, "mem_get_info", info)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * GIB)
    assert free_bytes(torch.device("cuda", 2)) == 32 * GIB
    assert asked == [torch.device("cuda", 2)]
    assert 0 < free_bytes(torch.device("cpu")) < 2**50


def test_each_rank_asks_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "3", "RANK": "11"}.items():
        monkeypatch.setenv(name, value)
    assert own_device(World("cuda", 8, 2)) == torch.device("cuda", 3)
    assert own_device(World("cpu", 8, 2)) == torch.device("cpu")


def test_given_sizes_are_kept() -> None:
    assert plan(chunk_tokens=2048, keep_gib=1.5).chunk_tokens == 2048
    assert plan(chunk_tokens=2048, keep_gib=1.5).memory.kept == 1.5 * GIB
    direct = plan(chunk_tokens=None, keep_gib=None)
    assert (direct.chunk_tokens, direct.keep_gib) == (None, None)
    assert direct.memory.kept == STEP.local_tokens * activation_bytes_per_token(BERT, STEP)


def test_arithmetic_is_six_operations_a_parameter_and_token() -> None:
    kept, again = (step_flop(BERT, STEP, kept_share=share, num_blocks=0) for share in (1.0, 0.0))
    assert kept == pytest.approx(6 * 86e6 * STEP.local_tokens, rel=0.02)
    assert again == pytest.approx(kept * 4 / 3)


def chunks_of(encoder: Encoder, texts: list[str], *, chunk_tokens: int | None) -> tuple:
    ids, prompt = encoder.tokenizer(texts)
    return make_chunks(
        ids, [prompt] * len(ids), chunk_rows=None, chunk_tokens=chunk_tokens, pad_id=0
    )


def test_halves_hold_the_same_texts_in_less_padding(tiny_bert: Path) -> None:
    encoder = build_encoder(str(tiny_bert)).eval()
    chunks = chunks_of(encoder, tiny_texts(17), chunk_tokens=64)
    halves = halve_chunks(chunks)
    assert sum(half.num_texts for half in halves) == 17
    assert max(h.input_ids.numel() for h in halves) < max(c.input_ids.numel() for c in chunks)
    assert all(half.attention_mask[:, -1].any() for half in halves)
    flat, found = torch.empty(2, 17, encoder.dimension)
    with torch.no_grad():
        for part, target in ((chunks, flat), (halves, found)):
            for chunk in part:
                target[chunk.index] = encoder(chunk)
    torch.testing.assert_close(found, flat)


def test_a_ring_holds_less_of_the_batch() -> None:
    whole, ring = (
        choose(
            BERT,
            replace(STEP, global_rows=1 << 20, local_rows=1 << 14, held_rows=held),
            **{"chunk_tokens": 8192, "keep_gib": 0, "usable_bytes": 80 * GIB, **WHOLE},  # type: ignore[arg-type]
            sharding=Sharding(),
        ).memory
        for held in (1 << 20, 3 << 14)
    )
    assert whole.embeddings > 10 * ring.embeddings
    assert whole.guide > 15 * ring.guide
    assert whole.chunk == ring.chunk
