"""One training step on all ranks against one process that holds the global batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from inbatch.doctor.checks.accuracy import Accuracy
from inbatch.doctor.checks.tiny import chunk_of, texts, tiny_encoder
from inbatch.doctor.result import Machine, Result
from inbatch.encoder import Encoder
from inbatch.gather import rank_and_world_size
from inbatch.losses import LossInput, MultipleNegativesRanking
from inbatch.step.contrastive_step import ContrastiveStep

NUM_ROWS, CHUNK_ROWS = 22, 5  # more where there are many ranks
LIMIT = 1e-10  # of float64


def training_step(machine: Machine) -> Iterator[Result]:
    """Gradients in small chunks on all ranks, in float64; candidates are gathered, or go round in a ring."""
    ways: tuple[Literal["global", "ring"], ...] = ("global", "ring")
    for way in ways:
        name = "step, gathered" if way == "global" else "step, in a ring"
        if machine.world_size > 1 and rank_and_world_size()[1] == 1:
            yield Result(name, "not run: the ranks have not met", None)
        elif way == "ring" and machine.world_size == 1:
            yield Result(name, "not run: one process has no ring", None)
        else:
            found = stepped(machine.device, gather=way, world_size=machine.world_size)
            yield Accuracy(name, LIMIT).result([(found, reference(machine.world_size))])


def stepped(device: torch.device, *, gather: Literal["global", "ring"], world_size: int) -> Tensor:
    """The gradient of all parameters after the step that a run takes."""
    encoder = tiny_encoder(attention="sdpa").double().to(device)
    step = ContrastiveStep(encoder, MultipleNegativesRanking(), gather=gather, keep_gib=0)
    step(step.collate(columns(world_size), chunk_rows=CHUNK_ROWS))
    return gradient(encoder)


def reference(world_size: int) -> Tensor:
    """The same by one forward and one backward of the whole batch on the CPU."""
    encoder = tiny_encoder(attention="eager").double()
    embedded = [encoder(chunk_of(encoder, column)) for column in columns(world_size).values()]
    rows = slice(0, len(embedded[0]))
    MultipleNegativesRanking()(LossInput(tuple(embedded), rows)).loss.backward()
    return gradient(encoder)


def columns(world_size: int) -> dict[str, list[str]]:
    """Texts of the global batch; ranks hold unequal numbers of rows."""
    count = max(2, NUM_ROWS // world_size) * world_size + world_size // 2
    both = texts(2 * count)
    return {"query": both[:count], "positive": both[count:]}


def gradient(encoder: Encoder) -> Tensor:
    """All gradients as one vector on the CPU."""
    parameters = [p.grad for p in encoder.parameters() if p.grad is not None]
    return torch.cat([grad.detach().double().cpu().flatten() for grad in parameters])
