"""Softmax cross-entropy of ragged rows, which have any number of positives and negatives.

`cross_entropy.py` in this form: queries [G, D] and one flat matrix of documents [M, D], sorted by rows, so
that queries against documents are one tile and one product, whatever the lengths of the lists. There are as
many products, three an entry, and nothing is padded. Where every row has one positive, and as many negatives
as any other, it equals that of columns.

Shape letters: G global rows, M documents, B rows this rank owns, K their pairs with positives, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from inbatch.losses.softmax.forms import add_up, solve
from inbatch.losses.softmax.panels import detached, spares_own
from inbatch.losses.softmax.products import weight_unit
from inbatch.losses.softmax.ragged_spec import (
    DOCUMENTS,
    QUERIES,
    Lists,
    RaggedSpec,
    make_lists,
    make_panel,
    panel_bounds,
)
from inbatch.losses.softmax.ragged_tables import Scratch, Tables
from inbatch.losses.softmax.ragged_tiles import add_gradients, reduce_panel
from inbatch.losses.softmax.relation import relate
from inbatch.losses.softmax.torch_panels import REMOVED
from inbatch.losses.softmax.walk import (
    Columns,
    StreamStats,
    drop_radial_parts,
    gradient_buffers,
    guide_factors,
    prepare,
    scaled_gradients,
)


def ragged_cross_entropy(
    spec: RaggedSpec, columns: Sequence[Tensor]
) -> tuple[Tensor, StreamStats, Tensor]:
    """The loss of the owned rows, a scalar that can be differentiated once, and detached statistics.

    The last of them is how many negatives a guide might have removed, over all softmaxes.

    Args:
        spec: the arguments without gradient.
        columns: queries [G, D] and documents [M, D].
    """
    spec, temperature = detached(spec)
    grad = torch.is_grad_enabled()
    loss, *stats, possible = _RaggedCrossEntropy.apply(spec, grad, temperature, *columns)
    return loss, StreamStats(*stats), possible


class _RaggedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, spec: RaggedSpec, grad: bool, temperature: Tensor | None, *columns: Tensor
    ) -> tuple[Tensor, ...]:
        learned, *needed = ctx.needs_input_grad[2:]
        wanted = [grad and (need or learned) for need in needed]
        with torch.autocast(columns[0].device.type, enabled=False):
            found = _run(spec, columns, wanted)
        ctx.save_for_backward(*found.gradients)
        ctx.factors, ctx.of_temperature = found.factors, found.of_temperature
        ctx.dtypes = tuple(column.dtype for column in columns)
        ctx.mark_non_differentiable(*found.stats, found.possible)
        return found.loss, *found.stats, found.possible

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        of_temperature = None if ctx.of_temperature is None else ctx.of_temperature * grad_loss
        return None, None, of_temperature, *scaled_gradients(ctx, grad_loss)


class _Found(NamedTuple):
    loss: Tensor
    stats: StreamStats
    possible: Tensor
    gradients: list[Tensor | None]
    factors: list[Tensor | float]  # what each gradient is to be multiplied by
    of_temperature: Tensor | None  # gradient of a learned temperature


def _run(spec: RaggedSpec, columns: Sequence[Tensor], wanted: Sequence[bool]) -> _Found:
    prepared = prepare(spec, columns)
    tables = _tables(spec, prepared)
    lists, num_rows = tables.lists, spec.rows.stop - spec.rows.start
    gradients = gradient_buffers(columns, wanted, prepared.dtype)
    loss_B, hardest_B = columns[0].new_empty(2, num_rows, dtype=prepared.dtype)
    positive_K, own_K = torch.empty_like(lists.weight), torch.empty_like(lists.weight)
    removed = torch.zeros((), dtype=torch.int64, device=columns[0].device)
    bounds = panel_bounds(spec, tables.widths, loss_B.device, loss_B.itemsize)
    num_pairs = np.diff(lists.pairs.bounds[bounds])
    scratch = Scratch(tables, int(np.diff(bounds).max()), int(num_pairs.max()))
    for start, stop in pairwise(bounds):
        panel = make_panel(lists, slice(start, stop), spec.rows.start)
        reduced = reduce_panel(tables, scratch, panel)
        solved = solve(spec.form, reduced.positive, panel.softmaxes, reduced.sums)
        loss_B[panel.own], hardest_B[panel.own] = solved.loss, reduced.hardest
        positive_K[panel.pairs], own_K[panel.pairs] = reduced.positive, solved.own
        removed += reduced.removed
        if any(wanted):
            add_gradients(tables, scratch, panel, reduced, solved.tiles, gradients)
    of_temperature = None
    if any(wanted):
        _add_own_pairs(spec, prepared, lists, own_K, gradients)
        of_temperature = drop_radial_parts(spec, prepared, gradients)
        if of_temperature is not None:
            of_temperature *= prepared.backward_factor(spec, num_rows)
    positive_B = lists.of_all_rows.sum_by_row(positive_K * lists.weight)
    scores = (positive_B * spec.temperature, hardest_B * spec.temperature)
    stats = StreamStats(*scores, removed)
    factors = prepared.backward_factors(spec, num_rows)
    return _Found(loss_B.mean(), stats, _possible(tables), gradients, factors, of_temperature)


def _tables(spec: RaggedSpec, prepared: Columns) -> Tables:
    lists = make_lists(
        spec.documents, prepared.factors[0].values.new_empty(0, dtype=prepared.dtype)
    )
    is_positive = spec.documents.is_positive
    no_negatives = None
    if spec.negatives == "own" or spec.among_positives:
        no_negatives = (~is_positive).to(prepared.dtype) * REMOVED
    return Tables(
        spec,
        prepared.factors,
        guide_factors(spec.guide),
        lists,
        None if spec.text_ids is None else relate(spec.text_ids, spec.documents),
        no_negatives,
    )


def _add_own_pairs(
    spec: RaggedSpec,
    prepared: Columns,
    lists: Lists,
    own_K: Tensor,
    gradients: Sequence[Tensor | None],
) -> None:
    """Add what the positives give; tiles leave it out, see `walk.add_own_pairs`."""
    query, document = prepared.factors
    row_K, doc_K = lists.pairs.row, lists.pairs.doc
    weight_K = own_K * weight_unit(query)
    if query.scale is not None and document.scale is not None:
        weight_K = weight_K * query.scale[spec.rows][row_K] * document.scale[doc_K]
    of_queries, of_documents = gradients[QUERIES], gradients[DOCUMENTS]
    if of_queries is not None:
        positives_KD = document.take(doc_K).exact_values()
        of_queries[spec.rows] += add_up(positives_KD, lists.starts, weight_K)
    if of_documents is not None:
        queries_KD = query[spec.rows].exact_values()[row_K]
        of_documents.index_add_(0, doc_K, queries_KD * weight_K[:, None])  # no document twice


def _possible(tables: Tables) -> Tensor:
    """Negatives that a guide may remove, over all softmaxes of this rank: int64 scalar."""
    spec, (num_queries, num_documents) = tables.spec, tables.widths
    counts_B, positives_B = spec.documents.counts, spec.documents.positives
    num_positives = spec.documents.is_positive.sum()
    total = torch.zeros_like(num_positives)
    for number, block in enumerate(spec.blocks):
        softmaxes_B = positives_B if tables.by_pair(block) else np.ones_like(positives_B)
        if block.candidates == QUERIES:
            total += int(softmaxes_B.sum()) * (num_queries - spares_own(block, spec.blocks))
            continue
        few = number in spec.among_positives or spec.negatives == "own"
        own_B = positives_B if few or block.rows == QUERIES else counts_B
        if few and block.rows == QUERIES and number not in spec.among_positives:
            own_B = own_B - (counts_B - positives_B)
        total += int(softmaxes_B.sum()) * (num_positives if few else num_documents)
        total -= int((softmaxes_B * own_B).sum())
    return total
