"""What a softmax of ragged rows is made of, and the lists of this rank's rows.

Shape letters: G global rows, M documents, B rows this rank owns, K (row, positive) pairs of them, R rows and
k pairs of a panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from inbatch.data.ragged import spans
from inbatch.device.copies import to_device
from inbatch.losses.base import VisibleDocuments
from inbatch.losses.softmax.forms import Form, Pairs
from inbatch.losses.softmax.panels import Softmax
from inbatch.losses.softmax.walk import MAX_PANEL_ROWS, panel_rows

Negatives = Literal["all", "own"]
NEGATIVES = ("all", "own")
QUERIES, DOCUMENTS = 0, 1  # columns of ragged rows


@final
@dataclass(frozen=True, slots=True)
class RaggedSpec(Softmax):
    """The arguments of `ragged_cross_entropy` that have no gradient.

    A block of `QUERIES` has a row for each query, one of `DOCUMENTS` for each positive. Own entries are a
    query's positives, or a positive's query; of documents against documents, all of the row's. The guide has
    the columns queries and documents, and a threshold for each pair, [K].
    """

    among_positives: frozenset[int]  # numbers of the blocks whose candidates are positives only
    documents: VisibleDocuments
    form: Form
    negatives: Negatives

    @property
    def by_pair(self) -> bool:
        """Whether the guide makes each positive a softmax of its own, in the blocks of queries too."""
        return self.guide is not None and self.form != "sum"


class Entries(NamedTuple):
    """Entries (row, document) of a matrix, by rows of this rank."""

    row: Tensor  # int64 [n], number of the row, or of the pair
    doc: Tensor  # int64 [n]
    bounds: np.ndarray  # int64 [B + 1], on the host: entries of each row

    def of(self, rows: slice, first: int) -> tuple[Tensor, Tensor]:
        """Those of some rows, counted from the first row or pair of these."""
        part = slice(int(self.bounds[rows.start]), int(self.bounds[rows.stop]))
        return self.row[part] - first, self.doc[part]


class Lists(NamedTuple):
    """The documents of this rank's rows."""

    pairs: Entries  # each row with its positives
    negatives: Entries  # each row with its negatives
    siblings: Entries  # each pair with all documents of its row
    starts: Tensor  # int64 [B], first pair of each row
    weight: Tensor  # [K], 1 / positives of the row

    @property
    def of_all_rows(self) -> Pairs:
        """All pairs."""
        return Pairs(self.pairs.row, self.starts, self.weight)


class Panel(NamedTuple):
    """Some of this rank's rows, and their pairs."""

    own: slice  # among the rows of this rank
    rows: slice  # among all rows
    pairs: slice  # among the pairs of this rank
    pair_row: Tensor  # [k], from the first row of the panel on
    pair_doc: Tensor  # [k]
    softmaxes: Pairs


def make_pairs(documents: VisibleDocuments, like: Tensor) -> Entries:
    """Each row of this rank with its positives, on the device of a tensor."""
    rows_B = np.arange(len(documents.counts))
    lengths_B = documents.positives
    return _entries(rows_B, first_documents(documents), lengths_B, lengths_B, like)


def make_lists(documents: VisibleDocuments, like: Tensor) -> Lists:
    """The lists, on the device of a tensor; weights in its type."""
    counts_B, positives_B = documents.counts, documents.positives
    rows_B, first_B = np.arange(len(counts_B)), first_documents(documents)
    negatives_B = counts_B - positives_B
    pair_row = np.repeat(rows_B, positives_B)
    pairs = np.arange(len(pair_row))
    return Lists(
        pairs=make_pairs(documents, like),
        negatives=_entries(rows_B, first_B + positives_B, negatives_B, negatives_B, like),
        siblings=_entries(
            pairs, first_B[pair_row], counts_B[pair_row], counts_B * positives_B, like
        ),
        starts=_on(np.cumsum(positives_B) - positives_B, like),
        weight=_on(1 / positives_B[pair_row], like).to(like.dtype),
    )


def first_documents(documents: VisibleDocuments) -> np.ndarray:
    """First document of each row of this rank, int64 [B]."""
    first_B: np.ndarray = documents.first + np.cumsum(documents.counts) - documents.counts
    return first_B


def _entries(
    row: np.ndarray, first: np.ndarray, lengths: np.ndarray, per_row: np.ndarray, like: Tensor
) -> Entries:
    """Each of `row` with so many documents from its first on."""
    bounds = np.concatenate([[0], np.cumsum(per_row)])
    docs = spans(first, lengths)
    return Entries(_on(np.repeat(row, lengths), like), _on(docs, like), bounds)


def _on(values: np.ndarray, like: Tensor) -> Tensor:
    return to_device(torch.from_numpy(values), like.device)


def make_panel(lists: Lists, own: slice, first_row: int) -> Panel:
    """The panel of some of this rank's rows, whose first one is a global row."""
    bounds = lists.pairs.bounds
    pairs = slice(int(bounds[own.start]), int(bounds[own.stop]))
    row_k, doc_k = lists.pairs.of(own, own.start)
    softmaxes = Pairs(row_k, lists.starts[own] - pairs.start, lists.weight[pairs])
    rows = slice(first_row + own.start, first_row + own.stop)
    return Panel(own, rows, pairs, row_k, doc_k, softmaxes)


def panel_bounds(
    spec: RaggedSpec, widths: Sequence[int], device: torch.device, itemsize: int
) -> list[int]:
    """Where panels begin among the rows of this rank, and the end.

    Args:
        spec: of the softmax.
        widths: rows of each column.
        device: whose memory bounds a panel.
        itemsize: bytes of a logit.
    """
    positives_B = spec.documents.positives
    per_row = sum(
        widths[b.candidates] for b in spec.blocks if b.rows == QUERIES and not spec.by_pair
    )
    per_pair = sum(widths[b.candidates] for b in spec.blocks if b.rows != QUERIES or spec.by_pair)
    bytes_B = itemsize * (per_row + per_pair * positives_B)
    mean = float(bytes_B.mean())
    most = panel_rows(device, int(mean), panel_bytes=spec.panel_bytes)
    most = max(most >> spec.panel_halvings, 1)
    kind: Literal["cpu", "cuda"] = "cpu" if device.type == "cpu" else "cuda"
    total = np.concatenate([[0], np.cumsum(bytes_B)])
    bounds = [0]
    while bounds[-1] < len(positives_B):
        start = bounds[-1]
        stop = (
            int(np.searchsorted(total, total[start] + most * mean * (1 + 1e-9), side="right")) - 1
        )
        bounds.append(min(max(stop, start + 1), start + MAX_PANEL_ROWS[kind], len(positives_B)))
    return bounds
