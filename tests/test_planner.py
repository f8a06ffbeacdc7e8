"""The plan against what autograd and torch really hold, and the answer to memory that runs out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.gradient_cache import cached_backward
from helpers.tiny import tiny_texts
from inbatch.batch.batch import Batch
from inbatch.batch.chunks import halve_chunks, make_chunks
from inbatch.encoder import Encoder, build_encoder
from inbatch.errors import ConfigError
from inbatch.gradcache import Engine, KeepBudget, OutOfMemoryHandler
from inbatch.losses import LossInput, LossOutput, MultipleNegativesRanking
from inbatch.run.auto_sizes import model_size
from inbatch.run.memory_plan import (
    GIB,
    MemoryPlan,
    ModelSize,
    Sharding,
    StepSize,
    activation_bytes_per_token,
    choose,
    step_flop,
    step_memory,
)
from inbatch.step.gradient_sync import NoSync

BERT = ModelSize(
    parameters=110_000_000,
    trainable=110_000_000,
    embedding_parameters=24_000_000,
    layers=12,
    width=768,
    intermediate=3072,
    heads=12,
    dimension=768,
)
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


class Limited:
    """A step on an encoder whose memory holds chunks of so many tokens."""

    def __init__(self, path: Path, *, limit_tokens: int, in_backward: bool) -> None:
        self.encoder = build_encoder(str(path))
        self.chunks = chunks_of(self.encoder, tiny_texts(16), chunk_tokens=64)
        self.budget = KeepBudget(None)
        self.handler = OutOfMemoryHandler(self.budget)
        self.said: list[str] = []
        self._limit_tokens, self._in_backward = limit_tokens, in_backward

    def run(self, *, may_repeat: bool = True) -> LossOutput:
        return self.handler.run(
            self._attempt,
            batch=self._batch(),
            rank=0,
            may_repeat=may_repeat,
            may_retry=False,
            undo=self.encoder.zero_grad,
            say=self.said.append,
        )

    def _batch(self) -> Batch:
        columns = {"num_rows": 8, "num_columns": 2, "num_global_rows": 8, "labels": None}
        ids = np.zeros((2, 8), dtype=np.uint64)
        counts = {"num_tokens": 0, "num_padded_tokens": 0}
        return Batch(chunks=self.chunks, text_ids=ids, source="s", step=0, **columns, **counts)

    def _attempt(self, on_out_of_memory: object) -> LossOutput:
        assert on_out_of_memory is None
        chunks = self.handler.fit(self._batch()).chunks
        engine = Engine(
            encode=self._encode,
            backward=self._backward,
            gradient_sync=NoSync().backward,
        )
        self._count = 0

        def loss(flat_ND: torch.Tensor) -> LossOutput:
            return MultipleNegativesRanking()(LossInput((flat_ND[:8], flat_ND[8:]), slice(0, 8)))

        return cached_backward(engine, loss, chunks, num_keep=self.budget.num_keep(chunks))

    def _encode(self, chunk: object) -> torch.Tensor:
        if not self._in_backward and chunk.input_ids.numel() > self._limit_tokens:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("test")
        return self.encoder(chunk)  # type: ignore[no-any-return]

    def _backward(self, surrogate: torch.Tensor) -> None:
        surrogate.backward()
        self._count += 1
        if self._in_backward and self.handler.num_halvings == 0:
            raise torch.OutOfMemoryError("test")  # after gradients were accumulated

    def gradient(self) -> torch.Tensor:
        return torch.cat(
            [p.grad.flatten() for p in self.encoder.parameters() if p.grad is not None]
        )


@pytest.mark.parametrize("in_backward", [False, True])
def test_a_step_that_runs_out_of_memory_is_repeated_exactly(
    tiny_bert: Path, in_backward: bool
) -> None:
    free = Limited(tiny_bert, limit_tokens=1000, in_backward=False)
    wanted = free.run()
    assert free.handler.num_halvings == 0
    assert not free.said
    limited = Limited(tiny_bert, limit_tokens=40, in_backward=in_backward)
    found = limited.run()
    assert limited.handler.num_halvings == 1
    assert limited.said == [
        "out of memory: chunks are cut to 1/2 of their size and 0 GiB of graphs are kept from this "
        "step on, which is repeated"
    ]
    torch.testing.assert_close(found.loss, wanted.loss)
    torch.testing.assert_close(limited.gradient(), free.gradient(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("limit_tokens", "may_repeat"), [(1, True), (40, False)])
def test_what_cannot_be_repeated_raises(
    tiny_bert: Path, limit_tokens: int, may_repeat: bool
) -> None:
    limited = Limited(tiny_bert, limit_tokens=limit_tokens, in_backward=False)
    with pytest.raises(
        ConfigError, match=r"^gradcache runs out of memory with chunks of up to \d+ tok"
    ):
        limited.run(may_repeat=may_repeat)
    assert limited.handler.num_halvings == (1 if may_repeat else 0)


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
