"""The softmax of in-batch losses, and every loss, against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch import losses
from inbatch.doctor.checks import plain
from inbatch.doctor.checks.accuracy import Accuracy
from inbatch.doctor.result import Machine, Result, attempt
from inbatch.losses.base import Loss, LossInput
from inbatch.losses.softmax.implementation import Implementation, obstacle_of_kernels

NUM_ROWS, DIM, GUIDE_DIM = 130, 72, 40  # no multiples of a kernel's tiles
ROWS = slice(20, 117)  # of this rank
TEMPERATURE = 0.05
#: Largest errors. float32 rounds logits of 20 at 1e-6; gradients of bf16 embeddings are bf16.
LIMIT, HALF_LIMIT = 3e-5, 1e-2

Exact = Callable[[Sequence[Tensor]], Tensor]


class Case(NamedTuple):
    """A loss, and its value in float64 as a function of the columns."""

    loss: Loss
    inputs: LossInput  # in float64, on the CPU
    exact: Exact


def softmax(machine: Machine) -> Iterator[Result]:
    """Each implementation of the streamed softmax, with masks and a guide, against whole matrices."""
    implementations: tuple[Implementation, ...] = ("tiled", "triton")
    for implementation in implementations:
        name = f"softmax ({implementation})"
        obstacle = "" if implementation == "tiled" else obstacle_of_kernels(machine.device)
        if obstacle:
            yield Result(name, f"not run: it {obstacle}", None)
            continue
        cases = list(softmax_cases(implementation))
        for dtype, shown in ((torch.float32, name), (torch.bfloat16, f"{name}, bf16")):
            yield from attempt(shown, partial(_compare, shown, cases, machine.device, dtype))


def every_loss(machine: Machine) -> Iterator[Result]:
    """Each loss on this device in float32 against itself in float64 on the CPU."""
    for name, loss in all_losses().items():
        inputs = inputs_of(loss)
        exact = partial(_value, loss, inputs)
        cases = [Case(loss, inputs, exact)]
        compare = partial(_compare, name, cases, machine.device, torch.float32)
        yield from attempt(name, compare)


def softmax_cases(implementation: Implementation) -> Iterator[Case]:
    """Losses that together use every part of the softmax but hardness."""
    ranking = losses.MultipleNegativesRanking(
        temperature=TEMPERATURE,
        directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
        implementation=implementation,
    )
    yield Case(
        ranking,
        inputs_of(ranking),
        lambda columns: plain.all_directions(columns, rows=ROWS, temperature=TEMPERATURE),
    )
    guided = losses.GIST(temperature=TEMPERATURE, implementation=implementation)
    inputs = inputs_of(guided)
    guide = inputs.guide or ()
    yield Case(
        guided,
        inputs,
        lambda columns: plain.gist(columns, guide, rows=ROWS, temperature=TEMPERATURE),
    )


def all_losses() -> dict[str, Loss]:
    """Every loss by the name of its class, with its defaults."""
    ranking = losses.MultipleNegativesRanking()
    found: dict[str, Loss] = {
        "Matryoshka": losses.Matryoshka(ranking, dims=[DIM, DIM // 2]),
        "WeightedSum": losses.WeightedSum([ranking, losses.InBatchKL()]),
    }
    for name in losses.__all__:
        kind = getattr(losses, name)
        if (
            isinstance(kind, type)
            and issubclass(kind, Loss)
            and kind not in (Loss, losses.Matryoshka, losses.WeightedSum)
        ):
            found[name] = kind()
    return dict(sorted(found.items()))


def inputs_of(loss: Loss) -> LossInput:
    """Random rows that share a direction, and what else a loss takes; the same on every call."""
    draws = torch.Generator().manual_seed(0)

    def columns(count: int, dim: int) -> tuple[Tensor, ...]:
        shared = torch.randn(NUM_ROWS, dim, generator=draws, dtype=torch.float64)
        noise = torch.randn(count, NUM_ROWS, dim, generator=draws, dtype=torch.float64)
        # As bf16 and float32 hold them, so that the inputs of all precisions are the same.
        return tuple((shared + each).bfloat16().double() for each in noise)

    count = 3 if loss.max_columns is None else loss.max_columns
    labels = (torch.arange(NUM_ROWS) % 2).double() if loss.needs_labels else None
    if loss.labels_are_classes:  # few triplets, so that rounding decides about none of them
        count, labels = 1, (torch.arange(NUM_ROWS) // 2).double()
    texts = columns(count, DIM)
    guide = columns(count, DIM if loss.matches_guide else GUIDE_DIM)
    scores = None
    if loss.needs_scores:
        scores = torch.rand((ROWS.stop - ROWS.start) * (count - 1), generator=draws)
    return LossInput(texts, ROWS, labels=labels, guide=guide, scores=scores)


def _compare(
    name: str, cases: Sequence[Case], device: torch.device, dtype: torch.dtype
) -> Iterator[Result]:
    """Value and gradients of some losses on a device, for columns of a dtype."""
    values: list[tuple[Tensor, Tensor]] = []
    gradients: list[tuple[Tensor, Tensor]] = []
    for case in cases:
        exact_columns = [column.clone().requires_grad_() for column in case.inputs.columns]
        columns = [each.detach().to(device, dtype).requires_grad_() for each in exact_columns]
        exact = case.exact(exact_columns)
        found = _value(case.loss, _moved(case.inputs, device), columns)
        values.append((found, exact))
        exact_gradients = torch.autograd.grad(exact, exact_columns)
        gradients += zip(torch.autograd.grad(found, columns), exact_gradients)
    if dtype == torch.float32:
        yield Accuracy(name, LIMIT).result([*values, *gradients])
        return
    # Products are as exact as in float32; a gradient has the dtype of its column.
    yield Accuracy(name, LIMIT).result(values)
    yield Accuracy(f"{name} grad", HALF_LIMIT).result(gradients)


def _value(loss: Loss, inputs: LossInput, columns: Sequence[Tensor]) -> Tensor:
    return loss(replace(inputs, columns=tuple(columns))).loss


def _moved(inputs: LossInput, device: torch.device) -> LossInput:
    """Labels, guide and scores in float32 on a device."""
    labels = None if inputs.labels is None else inputs.labels.float().to(device)
    guide = tuple(column.float().to(device) for column in inputs.guide or ())
    scores = None if inputs.scores is None else inputs.scores.float().to(device)
    return replace(inputs, labels=labels, guide=guide, scores=scores)
