"""Passes that run out of memory on the way end with the gradient of passes that do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from test_engine import Net, chunks_of, contrast
from torch import Tensor

from helpers.gradient_cache import cached_backward
from helpers.shortage import ERRORS, Shortage, never
from inbatch.batch.batch import Chunk
from inbatch.device.memory import is_out_of_memory, make_room, retried
from inbatch.gradcache import Accumulated, Engine, KeepBudget, OutOfMemoryHandler
from inbatch.step.gradient_sync import NoSync

SIZES = [5, 3, 8]
CPU = torch.device("cpu")


class Passes:
    """The passes over three chunks on a net that now and then runs out of memory."""

    def __init__(
        self,
        dropout: float,
        *,
        num_keep: int,
        forward: Callable[[int], bool] = never,
        backward: Callable[[int], bool] = never,
        largest: int = 100,
        error: str = "allocator",
    ) -> None:
        self.net, self.memory = Net(dropout), OutOfMemoryHandler(KeepBudget(None))
        self.shortage = Shortage(self.net.dropout, forward=forward, backward=backward, error=error)
        self._largest, self._error = largest, error
        torch.manual_seed(11)
        engine = Engine(
            self._encode,
            lambda surrogate: surrogate.backward(),
            NoSync().backward,
            relief=self.memory,
            accumulated=Accumulated(list(self.net.parameters())),
        )
        self.loss = cached_backward(engine, contrast, chunks_of(SIZES), num_keep=num_keep).loss
        self.after = torch.rand(3)

    def _encode(self, chunk: Chunk) -> Tensor:
        embeddings: Tensor = self.net(chunk)
        if chunk.num_texts > self._largest:
            raise ERRORS[self._error]
        return embeddings

    @property
    def gradient(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.net.parameters() if p.grad is not None])


def at(*numbers: int) -> Callable[[int], bool]:
    return lambda number: number in numbers


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("num_keep", "fails", "num_halvings"),
    [
        (3, {"forward": at(3)}, 0),  # the third graph does not fit
        (1, {"forward": at(1)}, 0),  # nor the first
        (0, {"forward": at(1)}, 1),  # a second forward, whose graph then lies on the host
        (0, {"forward": at(3)}, 1),
        (3, {"forward": at(3), "backward": at(1)}, 0),  # a backward beside kept graphs
        (3, {"backward": at(1, 2)}, 0),  # first there is one left to let go
        (3, {"backward": at(1, 2, 3)}, 1),
        (0, {"backward": at(1)}, 1),
        (0, {"backward": at(3)}, 1),  # the last
        (2, {"backward": at(1, 3)}, 1),
    ],
)
def test_a_retried_pass_has_the_same_gradient_to_the_last_bit(
    num_keep: int, fails: dict[str, Callable[[int], bool]], num_halvings: int, error: str
) -> None:
    wanted = Passes(0.5, num_keep=3)
    found = Passes(0.5, num_keep=num_keep, error=error, **fails)  # type: ignore[arg-type]
    assert found.memory.num_halvings == num_halvings
    assert found.memory.panel_halvings == 0
    assert torch.equal(found.loss, wanted.loss)
    assert torch.equal(found.gradient, wanted.gradient)
    assert torch.equal(found.after, wanted.after)
    assert all(p.requires_grad for p in found.net.parameters())


@pytest.mark.parametrize(("num_keep", "most", "num_forwards"), [(3, 8, 4), (2, 4, 5)])
def test_half_of_the_graphs_are_let_go_at_a_time(
    num_keep: int, most: int, num_forwards: int
) -> None:
    """The chunks have 5, 3 and 8 tokens. Of three graphs two stay, of two none."""
    found = Passes(0.5, num_keep=num_keep, forward=at(num_keep))
    assert found.memory.budget.most_tokens == most
    assert found.shortage.num_forwards == num_forwards


@pytest.mark.parametrize("num_keep", [0, 2])
@pytest.mark.parametrize(("largest", "num_halvings"), [(4, 1), (2, 2), (1, 3)])
def test_chunks_are_cut_into_halves_as_often_as_it_takes(
    num_keep: int, largest: int, num_halvings: int
) -> None:
    wanted = Passes(0.0, num_keep=0)
    found = Passes(0.0, num_keep=num_keep, largest=largest)
    assert found.memory.num_halvings == num_halvings
    torch.testing.assert_close(found.loss, wanted.loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.gradient, wanted.gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fails", [{"forward": at(1)}, {"backward": at(1)}, {"backward": at(2)}])
def test_a_second_forward_without_random_numbers_is_cut_too(
    fails: dict[str, Callable[[int], bool]],
) -> None:
    """What a failed backward has reached is not added twice, by neither half."""
    wanted = Passes(0.0, num_keep=0)
    found = Passes(0.0, num_keep=0, **fails)  # type: ignore[arg-type]
    assert found.memory.num_halvings == 1
    assert found.shortage.num_forwards > 4  # three chunks, one of them again, and halves
    torch.testing.assert_close(found.gradient, wanted.gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "fails",
    [
        {"forward": at(1, 2), "dropout": 0.5},  # nor does a graph on the host fit
        {"backward": lambda number: True, "dropout": 0.5},
        {"backward": lambda number: True, "dropout": 0.0},
        {"largest": 0, "dropout": 0.0},  # a text alone does not fit
    ],
)
@pytest.mark.parametrize("num_keep", [0, 3])
def test_what_stays_too_large_raises(fails: dict[str, object], num_keep: int) -> None:
    if num_keep and "forward" in fails:
        fails = {**fails, "forward": lambda number: True}
    with pytest.raises(torch.OutOfMemoryError):
        Passes(num_keep=num_keep, **fails)  # type: ignore[arg-type]


@pytest.mark.parametrize("fails", [{"forward": at(1)}, {"backward": at(1)}])
def test_without_relief_the_error_passes(fails: dict[str, Callable[[int], bool]]) -> None:
    net = Net(0.0)
    Shortage(net.dropout, **fails)
    engine = Engine(net, lambda surrogate: surrogate.backward(), NoSync().backward)
    with pytest.raises(torch.OutOfMemoryError):
        cached_backward(engine, contrast, chunks_of(SIZES), num_keep=1)


def test_other_errors_pass() -> None:
    def compute() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        retried(compute, lambda: True)


def test_remedies_are_asked_in_their_order() -> None:
    left, asked = {"graphs": 1, "panels": 2}, list[str]()

    def remedy(name: str) -> bool:
        asked.append(name)
        left[name] -= 1
        return left[name] >= 0

    def compute() -> None:
        raise ERRORS["cublas"]

    with pytest.raises(RuntimeError, match="CUBLAS"):
        retried(compute, partial(remedy, "graphs"), partial(remedy, "panels"))
    assert asked == ["graphs", "graphs", "panels", "graphs", "panels", "graphs", "panels"]


def test_what_is_out_of_memory() -> None:
    assert all(map(is_out_of_memory, ERRORS.values()))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


def test_room_is_made_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    held, empty = [3], torch.empty

    def limited(num_bytes: int, **options: object) -> Tensor:
        if num_bytes > 10 - held[0]:
            raise ERRORS["allocator"]
        return empty(num_bytes, **options)  # type: ignore[call-overload,no-any-return]

    def let_go() -> bool:
        held[0] -= 1
        return held[0] >= 0

    monkeypatch.setattr(torch, "empty", limited)
    make_room(9, CPU, let_go)
    assert held == [1]
    with pytest.raises(torch.OutOfMemoryError):
        make_room(11, CPU, let_go)
