"""Rows with lists in 16 bits, multiplied as on a GPU, against their definition in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_ragged import gist, mnrl, wanted

from helpers.half_products import matrix_units
from helpers.ragged_oracle import Definition, RaggedBatch, make_batch, value_and_gradients
from inbatch.losses.base import Loss

ALL: Any = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
DEFINITIONS = [
    Definition(directions=frozenset(ALL), temperature=0.05, masked=True),
    Definition(form="mean", temperature=0.02),
    Definition(form="sum", directions=frozenset(ALL), temperature=0.02),
    Definition(margin=0.05, directions=frozenset({ALL[0], ALL[1], ALL[3]}), masked=True),
]


@pytest.fixture(autouse=True)
def _as_on_a_gpu() -> Iterator[None]:
    with matrix_units():
        yield


def rounded(dtype: torch.dtype) -> RaggedBatch:
    """Embeddings that a type holds, of various lengths."""
    batch = make_batch(14, shared=0.1, dim=64)
    queries, documents = batch.columns
    lengths = 10 ** (torch.arange(len(documents)) % 4 - 1.0)[:, None].double()
    low = (queries.to(dtype).double(), (documents * lengths).to(dtype).double())
    return replace(batch, columns=low)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("definition", DEFINITIONS, ids=range(len(DEFINITIONS)))
def test_loss_and_gradients(definition: Definition, dtype: torch.dtype) -> None:
    loss: Loss = gist(definition) if definition.margin is not None else mnrl(definition)
    batch = rounded(dtype)
    columns = [column.float().requires_grad_() for column in batch.columns]
    inputs = replace(
        batch.inputs(columns=columns),
        exact_in=None if dtype == torch.float32 else dtype,
        mixed=True,
    )
    value, gradients = value_and_gradients(loss(inputs).loss, columns)
    exact, exact_gradients = wanted(definition, batch)
    assert abs(float(value - exact)) < 1e-5 * max(1, float(exact))
    limit = torch.finfo(torch.float16 if dtype == torch.float32 else dtype).eps
    for found, other in zip(gradients, exact_gradients):
        assert float((found.double() - other).norm() / other.norm()) < limit
