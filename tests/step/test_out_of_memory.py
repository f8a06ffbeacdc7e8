"""Steps that run out of memory somewhere take the update of a step that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import inbatch
from helpers import keystone
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
from helpers.shortage import ERRORS, Shortage, never
from helpers.tiny import tiny_texts
from inbatch.batch.batch import Chunk
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.guide import LiveGuide, Process
from inbatch.losses.softmax import ring
from inbatch.step import loss_gradient
from inbatch.strategies.failed_rank import lost_rank

ROWS = 12
Fails = Callable[[int], bool]


def at(*numbers: int) -> Fails:
    return lambda number: number in numbers


def layer_of(encoder: Encoder) -> torch.nn.Module:
    """A layer with others before and behind it."""
    return encoder.backbone.encoder.layer[0].output.dense  # type: ignore[no-any-return, union-attr]


def starve_loss(monkey: pytest.MonkeyPatch, fails: Fails, *, error: str = "allocator") -> None:
    """The loss runs out of memory after its gradient was computed, by the number of the call."""
    count = [0]

    whole = loss_gradient.loss_gradient

    def starved(*args: Any, **options: Any) -> Any:
        found = whole(*args, **options)
        count[0] += 1
        if fails(count[0]):
            raise ERRORS[error]
        return found

    monkey.setattr(loss_gradient, "loss_gradient", starved)


def starve_ring(monkey: pytest.MonkeyPatch, fails: Fails) -> None:
    """The way back of a loss in a ring runs out of memory, by the number of the product."""
    whole, count = ring.add_product, [0]

    def starved(*sides: Tensor) -> None:
        count[0] += 1
        if fails(count[0]):
            raise ERRORS["allocator"]
        whole(*sides)

    monkey.setattr(ring, "add_product", starved)


class Alone:
    """One step on one process, with dropout."""

    def __init__(
        self,
        path: Path,
        *,
        keep_gib: float | None = 0.0,
        dropout: float = 0.2,
        loss: str = "gist_relative",  # with a learned temperature
        place: str = "",
        fails: Fails = never,
        largest: int = 1000,
        error: str = "allocator",
    ) -> None:
        encoder = make_encoder(path, torch.float64)
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout
        guide = make_encoder(path, torch.float32)
        self.said: list[str] = []
        process = Process(device=torch.device("cpu"), say=self.said.append)
        self.step = inbatch.ContrastiveStep(
            encoder.train(),
            LOSSES[loss],
            guide=LiveGuide(guide) if LOSSES[loss].needs_guide else None,
            keep_gib=keep_gib,
            seed=3,
            process=process,
        )
        columns: dict[str, Any] = {
            name: tiny_texts(ROWS, seed=n) for n, name in enumerate(("query", "positive"))
        }
        if LOSSES[loss].needs_labels:
            columns["label"] = [float(n % 2) for n in range(ROWS)]
        batch = self.step.collate(columns, chunk_rows=8)
        with pytest.MonkeyPatch.context() as monkey:
            if place in ("forward", "backward"):
                Shortage(layer_of(encoder), **{place: fails}, error=error)
            elif place == "loss":
                starve_loss(monkey, fails, error=error)
            elif place == "guide":
                _limit(monkey, guide, fails, error)
            _limit_chunks(monkey, encoder, largest, error)
            self.loss = self.step(batch).loss
        self.gradient = torch.cat(
            [
                p.grad.flatten()
                for p in [*self.step.loss_parameters.parameters(), *encoder.parameters()]
                if p.grad is not None
            ]
        )
        self.memory = self.step.memory


def _limit(monkey: pytest.MonkeyPatch, guide: Encoder, fails: Fails, error: str) -> None:
    whole, count = guide.forward, [0]

    def forward(chunk: Chunk) -> Tensor:
        count[0] += 1
        if fails(count[0]):
            raise ERRORS[error]
        return whole(chunk)

    monkey.setattr(guide, "forward", forward)


def _limit_chunks(monkey: pytest.MonkeyPatch, encoder: Encoder, largest: int, error: str) -> None:
    """Second forwards of larger chunks do not fit."""
    whole = encoder.forward

    def forward(chunk: Chunk) -> Tensor:
        if torch.is_grad_enabled() and chunk.num_texts > largest:
            raise ERRORS[error]
        return whole(chunk)

    monkey.setattr(encoder, "forward", forward)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"keep_gib": None, "place": "forward", "fails": at(3)}, "embedding: graphs of at most"),
        ({"keep_gib": None, "place": "loss", "fails": at(1)}, "the loss: graphs of at most"),
        ({"keep_gib": None, "place": "backward", "fails": at(2)}, "the backward pass: graphs of"),
    ],
)
def test_fewer_graphs_are_kept_first_and_change_no_bit(
    tiny_bert: Path, options: dict[str, Any], line: str, error: str
) -> None:
    wanted, found = Alone(tiny_bert), Alone(tiny_bert, error=error, **options)
    assert torch.equal(found.gradient, wanted.gradient)
    assert torch.equal(found.loss, wanted.loss)
    assert (found.memory.num_halvings, found.memory.panel_halvings) == (0, 0)
    [said] = found.said
    assert said.startswith(f"out of memory in {line}")
    assert said.endswith("tokens are kept from here on")


@pytest.mark.parametrize(
    ("options", "halvings", "line"),
    [
        ({"place": "forward", "fails": at(1)}, (1, 0), "chunks are cut to 1/2 of their size"),
        ({"place": "backward", "fails": at(1, 4)}, (2, 0), "chunks are cut to 1/4 of their size"),
        ({"largest": 1}, (3, 0), "chunks are cut to 1/8 of their size"),
        ({"keep_gib": None, "largest": 3}, (2, 0), "tokens are kept and chunks are cut to 1/4"),
        ({"place": "loss", "fails": at(1, 2)}, (0, 2), "panels of the loss are cut to 1/4"),
        ({"place": "guide", "fails": at(1)}, (1, 0), "in the guide: chunks are cut to 1/2"),
    ],
)
def test_then_chunks_or_panels_are_cut_as_often_as_it_takes(
    tiny_bert: Path, options: dict[str, Any], halvings: tuple[int, int], line: str
) -> None:
    wanted, found = (Alone(tiny_bert, dropout=0.0, **each) for each in ({}, options))
    assert (found.memory.num_halvings, found.memory.panel_halvings) == halvings
    [said] = found.said
    assert line in said
    torch.testing.assert_close(found.loss, wanted.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.gradient, wanted.gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"largest": 0}, r"^gradcache runs out of memory with chunks of up to \d+ tokens: set enc"),
        (
            {"place": "loss", "fails": lambda number: True},
            r"^global_batch_size=12 does not fit in ",
        ),
        (
            {"place": "guide", "fails": lambda number: True},
            r"^guide\.chunk_tokens leaves .* guide\.mode",
        ),
    ],
)
@pytest.mark.parametrize("keep_gib", [None, 0.0])
def test_the_end_names_the_setting_that_helps(
    tiny_bert: Path, options: dict[str, Any], message: str, keep_gib: float | None
) -> None:
    with pytest.raises(ConfigError, match=message):
        Alone(tiny_bert, keep_gib=keep_gib, **options)


def test_losses_without_panels_end_at_once(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match="global_batch_size"):
        Alone(tiny_bert, loss="cosent", place="loss", fails=at(1))


def _accumulated(path: Path, place: str, fails: Fails) -> tuple[Tensor, int]:
    encoder = make_encoder(path, torch.float64)
    if place:
        Shortage(layer_of(encoder), **{place: fails})  # type: ignore[arg-type]
    options: dict[str, Any] = {"chunk_rows": 5, "keep_gib": 0, "accumulate": 2}
    loss = LOSSES["mnrl_all_directions"]  # with a learned temperature
    module, batches = make_step(encoder, loss, ROWS, num_steps=2, **options)
    fit(module, batches, 1)
    parameters = torch.cat([p.detach().flatten() for p in module.parameters()])
    return parameters, module.step.memory.num_halvings


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_accumulated_batches_on_one_process(tiny_bert: Path, place: str) -> None:
    """The second batch of an optimizer step is rescued; repeating it would count the first twice."""
    wanted, _ = _accumulated(tiny_bert, "", never)
    found, num_halvings = _accumulated(tiny_bert, place, at(10))
    assert num_halvings == 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


# Of a rank with four chunks in each of two steps.
CASES: list[tuple[float | None, str, Fails]] = [
    (None, "forward", at(2)),
    (None, "backward", at(1)),
    (None, "backward", at(4)),  # the one that reduces gradients, which has begun to
    (0.0, "forward", at(2)),
    (0.0, "forward", at(4)),
    (0.0, "backward", at(2)),
    (0.0, "backward", at(8)),
    (None, "loss", at(1, 2, 3)),
    (None, "ring", at(2, 9, 10, 11)),  # between two hops of the loss
    (None, "ring of soft targets", at(2, 5, 6)),
]


def _loss_at(place: str) -> str:
    return "weighted_sum" if place == "ring of soft targets" else "gist_relative"


def _train(
    rank: int, world_size: int, path: Path, strategy: str, cases: list[int]
) -> list[dict[str, Tensor]]:
    quiet()
    found = []
    for keep_gib, place, fails in [CASES[n] for n in cases]:
        with pytest.MonkeyPatch.context() as monkey:
            if rank == 1:
                _starve(monkey, place, fails)
            found.append(
                distributed(
                    *(rank, world_size, path, STRATEGIES[strategy], LOSSES[_loss_at(place)]),
                    num_rows=ROWS,
                    dtype=torch.float32,
                    chunk_rows=5,
                    keep_gib=keep_gib,
                    num_steps=2,
                    gather="ring" if place.startswith("ring") else "global",
                )
            )
    return found


def _starve(monkey: pytest.MonkeyPatch, place: str, fails: Fails) -> None:
    if place == "loss":
        starve_loss(monkey, fails)
        return
    if place.startswith("ring"):
        starve_ring(monkey, fails)
        return
    encoders = []

    def make(*args: Any, **options: Any) -> Encoder:
        encoders.append(make_encoder(*args, **options))
        if len(encoders) == 1:  # the second one is the guide
            Shortage(layer_of(encoders[0]), **{place: fails})  # type: ignore[arg-type]
        return encoders[-1]

    monkey.setattr(keystone, "make_encoder", make)


@pytest.mark.parametrize(
    ("strategy", "cases"),
    [("ddp", [*range(len(CASES))]), ("deepspeed_stage_2", [0, 2, 5, 6])],
)
def test_one_rank_of_two_runs_out_of_memory(
    tiny_bert: Path, strategy: str, cases: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    found = run(_train, 2, tiny_bert, strategy, cases)[0]
    names = [_loss_at(CASES[case][1]) for case in cases]
    wanted = {n: reference(tiny_bert, LOSSES[n], ROWS, 2, torch.float32) for n in {*names}}
    errors = [
        relative_error(each, wanted[name], start_of(tiny_bert, LOSSES[name], torch.float32))
        for each, name in zip(found, names)
    ]
    assert max(errors) <= 2e-5, errors  # in float32, at a temperature of 0.01
    said = [line for line in capfd.readouterr().out.splitlines() if "out of memory" in line]
    assert len(said) == len(cases)
    assert all(line.startswith("out of memory on rank 1 in ") for line in said)


# Where a rank that has nothing left to lower cannot take part in what the others do.
ENDS: list[tuple[str, str, str]] = [
    ("ddp", "ring", "global_batch_size=12 does not fit in memory in the loss"),
    ("deepspeed_stage_3", "embed", "gradcache runs out of memory with chunks of up to"),
]


def _end(rank: int, world_size: int, path: Path, strategy: str, place: str) -> str | None:
    quiet()
    with pytest.MonkeyPatch.context() as monkey:
        if rank == 1:
            _starve(monkey, place, lambda number: number > 3)
        with pytest.raises((ConfigError, RuntimeError)) as caught:
            distributed(
                *(rank, world_size, path, STRATEGIES[strategy], LOSSES["gist"]),
                num_rows=ROWS,
                dtype=torch.float32,
                chunk_rows=5,
                keep_gib=0.0,
                num_steps=1,
                gather="ring" if place == "ring" else "global",
            )
    return str(caught.value) if rank == 1 else lost_rank(caught.value)


@pytest.mark.parametrize(("strategy", "place", "message"), ENDS)
def test_a_rank_that_ends_alone_says_why_and_the_others_end_too(
    tiny_bert: Path, strategy: str, place: str, message: str
) -> None:
    lost, ended = run(_end, 2, tiny_bert, strategy, place)
    assert str(ended).startswith(message)
    assert lost is not None
