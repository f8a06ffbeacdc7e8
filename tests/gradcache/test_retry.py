"""Steps that run out of memory on the way have the gradient of a step that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine import Net, chunks_of, contrast
from torch import Tensor

from helpers.distributed import run
from helpers.gradient_cache import cached_backward
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
from inbatch.batch.batch import Chunk
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.gradcache import Engine
from inbatch.step.gradient_sync import NoSync

Fails = Callable[[Chunk, int], bool]  # of a chunk and the number of the forward
SIZES = [5, 3, 8]


class Step:
    """One step of the engine on an encoder that now and then runs out of memory."""

    def __init__(self, dropout: float, fails: Fails, *, num_keep: int, may: bool = True) -> None:
        self.net, self.num_retries, self._forwards = Net(dropout), 0, 0
        self._fails = fails
        torch.manual_seed(11)
        engine = Engine(
            self._encode,
            lambda surrogate: surrogate.backward(),
            NoSync().backward,
            on_out_of_memory=self._on_out_of_memory if may else None,
        )
        self.loss = cached_backward(engine, contrast, chunks_of(SIZES), num_keep=num_keep).loss

    def _encode(self, chunk: Chunk) -> Tensor:
        self._forwards += 1
        embeddings = self.net(chunk)  # draws dropout before it fails
        if self._fails(chunk, self._forwards):
            raise torch.OutOfMemoryError("test")
        return embeddings

    def _on_out_of_memory(self) -> None:
        self.num_retries += 1

    @property
    def gradient(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.net.parameters()])


def never(chunk: Chunk, forward: int) -> bool:
    return False


@pytest.mark.parametrize(
    ("num_keep", "fails", "num_retries"),
    [
        (3, lambda chunk, forward: forward == 3, 1),  # the third graph does not fit
        (1, lambda chunk, forward: forward == 3, 1),  # nor a chunk beside one kept graph
        (0, lambda chunk, forward: forward == 4, 1),  # a second forward
        (0, lambda chunk, forward: forward == 5, 1),
        (3, lambda chunk, forward: forward in (3, 6), 2),  # both
    ],
)
def test_same_dropout_after_a_retry(num_keep: int, fails: Fails, num_retries: int) -> None:
    wanted, found = Step(0.5, never, num_keep=0), Step(0.5, fails, num_keep=num_keep)
    assert found.num_retries == num_retries
    assert torch.equal(found.loss, wanted.loss)
    torch.testing.assert_close(found.gradient, wanted.gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_keep", [0, 2])
def test_chunks_are_cut_into_halves(num_keep: int) -> None:
    wanted = Step(0.0, never, num_keep=0)
    found = Step(0.0, lambda chunk, _: chunk.num_texts > 4, num_keep=num_keep)
    assert found.num_retries == (2 if num_keep == 0 else 3)
    torch.testing.assert_close(found.loss, wanted.loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.gradient, wanted.gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("fails", "may"),
    [
        (lambda chunk, _: chunk.num_texts > 2, True),  # half of 5 or 8 texts does not fit either
        (lambda chunk, forward: forward in (4, 5), True),  # nor a second forward on the host
        (lambda chunk, forward: forward == 1, False),
        (lambda chunk, forward: forward == 4, False),
    ],
)
def test_what_stays_too_large_raises(fails: Fails, may: bool) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Step(0.0, fails, num_keep=0, may=may)


def _starve(monkey: pytest.MonkeyPatch, *, fails: Callable[[int], bool]) -> None:
    """Encoder forwards with gradient run out of memory, by their number."""
    whole, count = Encoder.forward, [0]

    def forward(encoder: Encoder, chunk: Chunk) -> Tensor:
        embeddings = whole(encoder, chunk)
        if encoder.training and torch.is_grad_enabled():
            count[0] += 1
            if fails(count[0]):
                raise torch.OutOfMemoryError("test")
        return embeddings

    monkey.setattr(Encoder, "forward", forward)


def _train(
    rank: int, world_size: int, path: Path, strategy: str, keep_gib: float | None
) -> dict[str, Tensor]:
    quiet()
    options: dict[str, Any] = {"chunk_rows": 5, "keep_gib": keep_gib, "num_steps": 2}
    with pytest.MonkeyPatch.context() as monkey:
        if rank == 1:
            _starve(monkey, fails=lambda number: number == 2)
        return distributed(
            *(rank, world_size, path, STRATEGIES[strategy], LOSSES["gist"]),
            num_rows=12,
            dtype=torch.float32,
            **options,
        )


@pytest.mark.parametrize("strategy", ["ddp", "deepspeed_stage_2"])
@pytest.mark.parametrize("keep_gib", [None, 0])
def test_one_rank_of_two_runs_out_of_memory(
    tiny_bert: Path, strategy: str, keep_gib: float | None, capfd: pytest.CaptureFixture[str]
) -> None:
    found = run(_train, 2, tiny_bert, strategy, keep_gib)[0]
    start = {
        n: p.detach().clone() for n, p in make_encoder(tiny_bert, torch.float32).named_parameters()
    }
    wanted = reference(tiny_bert, LOSSES["gist"], 12, 2, torch.float32)
    assert relative_error(found, wanted, start) <= 5e-6
    said = capfd.readouterr().out
    assert "out of memory on rank 1: chunks are cut to 1/2 of their size and 0 GiB" in said
    assert said.count("out of memory") == 1


def _fail(rank: int, world_size: int, path: Path) -> str:
    """Every rank fails, as in a job whose ranks hold alike chunks."""
    quiet()
    with pytest.MonkeyPatch.context() as monkey:
        _starve(monkey, fails=lambda number: number == 1)
        with pytest.raises(ConfigError) as caught:
            distributed(
                *(rank, world_size, path, STRATEGIES["fsdp"], LOSSES["multiple_negatives_ranking"]),
                num_rows=12,
                num_steps=1,
                dtype=torch.float32,
                chunk_rows=5,
                keep_gib=0,
            )
    return str(caught.value)


def test_sharded_parameters_get_advice(tiny_bert: Path) -> None:
    for message in run(_fail, 2, tiny_bert):
        assert message.startswith("gradcache runs out of memory with chunks of up to ")
        assert "gradcache.chunk_tokens=" in message


def test_accumulated_batches_on_one_process(tiny_bert: Path) -> None:
    """The second batch of an optimizer step is rescued; repeating it would count the first twice."""
    parameters = []
    for fails in (lambda number: False, lambda number: number == 10):
        with pytest.MonkeyPatch.context() as monkey:
            _starve(monkey, fails=fails)
            encoder = make_encoder(tiny_bert, torch.float64)
            options: dict[str, Any] = {"chunk_rows": 5, "keep_gib": 0, "accumulate": 2}
            module, batches = make_step(
                encoder, LOSSES["multiple_negatives_ranking"], 12, num_steps=2, **options
            )
            fit(module, batches, 1)
            parameters.append(torch.cat([p.detach().flatten() for p in encoder.parameters()]))
            rescued = module.step.memory.num_halvings
    assert rescued == 1
    torch.testing.assert_close(parameters[0], parameters[1], rtol=0, atol=1e-12)
