"""A shared lookup gives the embeddings and gradients of separate ones, with one large gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inbatch.encoder.lookup import shared_lookup


@pytest.fixture
def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(50, 8, padding_idx=3, dtype=torch.float64)


CHUNKS = [torch.tensor([[5, 9, 5, 3], [7, 3, 3, 3]]), torch.tensor([[9, 49], [0, 7]])]


def _loss(embeddings: torch.Tensor) -> torch.Tensor:
    weights = torch.linspace(-1, 1, embeddings.numel(), dtype=torch.float64)
    return (embeddings.sin() * weights.view_as(embeddings)).sum()


def _gradient(table: nn.Embedding, shared: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
    table.zero_grad()
    if shared:
        with shared_lookup(table, CHUNKS) as complete:
            found = [table(ids) for ids in CHUNKS]
            _loss(found[1]).backward()
            assert table.weight.grad is None
            complete()
            _loss(found[0]).backward()
    else:
        found = [table(ids) for ids in CHUNKS]
        for each in found:
            _loss(each).backward()
    assert table.weight.grad is not None
    return found, table.weight.grad.clone()


def test_values_and_gradients(table: nn.Embedding) -> None:
    apart, wanted = _gradient(table, shared=False)
    together, found = _gradient(table, shared=True)
    for one, other in zip(apart, together):
        assert torch.equal(one, other)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-15)
    assert not found[3].any()  # padding does not train
    assert found[[0, 5, 7, 9, 49]].abs().sum(1).min() > 0


def test_the_large_gradient_is_made_once(table: nn.Embedding) -> None:
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if function is torch.ops.aten.embedding_dense_backward.default:
                sizes.append(args[2])
            return function(*args, **(kwargs or {}))

    for shared, wanted in ((False, [50, 50]), (True, [6, 6, 50])):
        sizes.clear()
        with Sizes():
            _gradient(table, shared=shared)
        assert sorted(sizes) == wanted


def test_outside_and_without_training_nothing_changes(table: nn.Embedding) -> None:
    with shared_lookup(table, CHUNKS):
        pass
    assert not table._forward_hooks
    table.requires_grad_(False)
    with shared_lookup(table, CHUNKS):
        assert not table._forward_hooks
    table.requires_grad_(True)
    with torch.no_grad(), shared_lookup(table, CHUNKS):
        assert not table._forward_hooks


def test_an_error_inside_leaves_no_hook(table: nn.Embedding) -> None:
    with pytest.raises(ValueError, match="inside"), shared_lookup(table, CHUNKS):
        raise ValueError("inside")
    assert not table._forward_hooks
