"""The engine against one ordinary forward and backward."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from helpers.gradient_cache import cached_backward
from inbatch.batch.batch import Chunk
from inbatch.gradcache import Engine, KeepBudget, fill_chunks
from inbatch.losses.base import LossOutput


class Net(nn.Module):
    """Embeds the first token of each text; dropout makes the replay matter."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(40, 8, dtype=torch.float64)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(8, 6, dtype=torch.float64)

    def forward(self, chunk: Chunk) -> Tensor:
        return self.out(torch.tanh(self.dropout(self.table(chunk.input_ids[:, 0]))))


def chunks_of(sizes: list[int]) -> list[Chunk]:
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(3))
    chunks = []
    for index in order.split(sizes):
        ids = (index * 7 % 40)[:, None]
        chunks.append(
            Chunk(ids, torch.ones_like(ids), torch.zeros(len(index), dtype=torch.int64), index)
        )
    return chunks


def contrast(flat_ND: Tensor) -> LossOutput:
    half = len(flat_ND) // 2
    scores = flat_ND[:half] @ flat_ND[half:].T
    return LossOutput(nn.functional.cross_entropy(scores, torch.arange(half)), {})


def run_engine(
    net: Net, chunks: list[Chunk], num_keep: int
) -> tuple[Tensor, list[Tensor], list[bool]]:
    marks: list[bool] = []

    @contextmanager
    def gradient_sync(last: bool):
        marks.append(last)
        yield

    net.zero_grad()
    torch.manual_seed(11)
    engine = Engine(net, lambda s: s.backward(), gradient_sync)
    output = cached_backward(engine, contrast, chunks, num_keep=num_keep)
    return output.loss, [p.grad.clone() for p in net.parameters()], marks


@pytest.mark.parametrize("num_keep", [0, 1, 2, 4])
def test_gradient_equals_one_backward(num_keep: int) -> None:
    net, chunks = Net(0.0), chunks_of([5, 3, 7, 1])
    loss, grads, marks = run_engine(net, chunks, num_keep)
    net.zero_grad()
    flat = torch.empty(16, 6, dtype=torch.float64)
    for chunk in chunks:
        flat = flat.index_copy(0, chunk.index, net(chunk))
    expected = contrast(flat)
    expected.loss.backward()
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.loss.detach(), rtol=0, atol=1e-12)
    for grad, parameter in zip(grads, net.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad, rtol=0, atol=1e-12)
    assert marks.count(True) == 1
    assert marks[-1]


def test_dropout_is_replayed_bit_for_bit() -> None:
    net, chunks = Net(0.5), chunks_of([5, 3, 8])
    kept_loss, kept, _ = run_engine(net, chunks, 3)
    after_kept = torch.rand(3)
    cached_loss, cached, _ = run_engine(net, chunks, 0)
    after_cached = torch.rand(3)
    assert torch.equal(kept_loss, cached_loss)
    assert torch.equal(after_kept, after_cached), "random state must not depend on caching"
    for a, b in zip(kept, cached, strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.allclose(a, b)
        for a, b in zip(kept, run_engine(Net(0.0), chunks, 0)[1], strict=True)
    ), "without active dropout this test would be vacuous"


@pytest.mark.parametrize("num_keep", [0, 5])
def test_fillers_change_nothing(num_keep: int) -> None:
    net, chunks = Net(0.0), chunks_of([5, 3, 8])
    _, expected, _ = run_engine(net, chunks, 0)
    filled = fill_chunks(chunks, 5, torch.device("cpu"))
    _, grads, marks = run_engine(net, filled, num_keep)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert marks == [False] * 4 + [True]


def test_budget_keeps_what_fits() -> None:
    net, chunks = Net(0.0), chunks_of([8, 4, 4])
    assert KeepBudget(None).num_keep(chunks) == 3
    assert KeepBudget(0).num_keep(chunks) == 0
    budget = KeepBudget(1.0)
    assert budget.wants_measure
    assert budget.num_keep(chunks) == 1
    with budget.measure(chunks[0].input_ids.numel(), list(net.parameters())):
        net(chunks[0])
    assert not budget.wants_measure
    assert budget.num_keep(chunks) == 3
    per_token = budget._bytes_per_token
    assert per_token is not None
    assert 8 * 8 <= per_token <= 8 * 8 * 8
    tight = KeepBudget(per_token * 13 / (1 << 30))
    tight._bytes_per_token = per_token
    assert tight.num_keep(chunks) == 2  # 8 + 4 tokens fit 13, 16 do not
