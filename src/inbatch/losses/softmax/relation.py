"""Which candidates are known positives of a row, where rows have several: the direct relation.

Two rows are related where they share a text among query and positives. A row's known positives are query and
positives of the rows related to it, and every text equal to its query or to one of its positives.
Labels of connected rows would be cheaper, but chains of rows that share a text grow together: with three
positives a row and a fifth of the texts repeated, to a sixth of a batch of 32,768.

Shape letters: G rows, M documents, B rows of this rank, R of these, U different texts, k pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.losses.base import VisibleDocuments


class Known(NamedTuple):
    """Candidates that are known positives of some rows; places None means all candidates in their order."""

    places: Tensor | None  # int64 [n]
    mask: Tensor  # bool [R, n]


class Relation(NamedTuple):
    """Texts as numbers, and the candidates that may be known positives of another row."""

    query_group: Tensor  # int64 [G], equal where texts are
    doc_group: Tensor  # int64 [M]
    rows: Tensor | None  # int64 [L], rows that share a text with another one; None for all of them
    docs: Tensor | None  # int64 [S], documents that may be known positives; None for all of them
    row_group: Tensor  # [L], `query_group` of `rows`
    text_group: Tensor  # [S], `doc_group` of `docs`
    is_positive: Tensor  # bool [S]
    place: Tensor  # int64 [S], place of the owner among `rows`; any where it is none of them
    bounds: Tensor  # int64 [L, 2], where the documents of each of `rows` begin and end among `docs`

    def known(self, rows: slice, pair_row_k: Tensor, pair_doc_k: Tensor) -> tuple[Known, Known]:
        """The queries and the documents that are known positives of some rows, those of the rows included.

        Args:
            rows: R of the global rows.
            pair_row_k: row of each of their positives, counted from the first one of them.
            pair_doc_k: its document.
        """
        own_R = self.query_group[rows]
        num_groups = len(self.query_group) + len(self.doc_group)
        holds_RU = torch.zeros(len(own_R), num_groups, dtype=torch.bool, device=own_R.device)
        holds_RU.scatter_(1, own_R[:, None], True)
        holds_RU[pair_row_k, self.doc_group[pair_doc_k]] = True
        texts_RS = holds_RU.index_select(1, self.text_group)
        # How many positives of each row are among the texts: differences of a running sum.
        running_RS = torch.nn.functional.pad(
            (texts_RS & self.is_positive).cumsum(1, dtype=torch.int32), (1, 0)
        )
        first_L, behind_L = self.bounds.unbind(1)
        related_RL = running_RS[:, behind_L] > running_RS[:, first_L]
        related_RL |= holds_RU.index_select(1, self.row_group)
        if related_RL.shape[1]:  # else all of the documents are negatives
            by_owner_RS = related_RL.index_select(1, self.place)
            texts_RS = torch.where(self.is_positive, by_owner_RS, texts_RS)
        return Known(self.rows, related_RL), Known(self.docs, texts_RS)


def relate(ids: Sequence[Tensor], documents: VisibleDocuments) -> Relation:
    """The relation of a batch.

    On a CPU few texts are looked at, those that two rows hold. Which they are would have to be known on the
    host, so on another device all are looked at.

    Args:
        ids: int64 [G] of queries and [M] of documents, equal where texts are equal.
        documents: of the batch.
    """
    both = torch.cat([part.reshape(-1) for part in ids])
    group = torch.searchsorted(both.sort().values, both)  # the first place of each: at most G + M
    query_group, doc_group = group.split([len(part) for part in ids])
    owner, is_positive = documents.owner, documents.is_positive
    all_rows = torch.arange(len(query_group), device=group.device)
    rows: Tensor | None = None
    docs: Tensor | None = None
    if group.device.type == "cpu":
        rows, docs = _shared(query_group, doc_group, owner, is_positive)
        doc_owner, kept_rows = owner[docs], rows
    else:
        doc_owner, kept_rows = owner, all_rows
    place_G = torch.searchsorted(kept_rows, all_rows).clamp_(max=max(len(kept_rows) - 1, 0))
    bounds = [torch.searchsorted(doc_owner, kept_rows, right=right) for right in (False, True)]
    return Relation(
        query_group,
        doc_group,
        rows,
        docs,
        query_group if rows is None else query_group[rows],
        doc_group if docs is None else doc_group[docs],
        is_positive if docs is None else is_positive[docs],
        place_G[doc_owner] if len(kept_rows) else torch.zeros_like(doc_owner),
        torch.stack(bounds, 1),
    )


def _shared(
    query_group: Tensor, doc_group: Tensor, owner: Tensor, is_positive: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows that share a text with another one, and documents that may be known positives of another row."""
    num_rows, num_groups = len(query_group), len(query_group) + len(doc_group)
    cell_row = torch.cat([torch.arange(num_rows), owner[is_positive]])
    cell_group = torch.cat([query_group, doc_group[is_positive]])
    shared_U = held_by_several(cell_row, cell_group, num_groups)
    linked_G = torch.zeros(num_rows, dtype=torch.bool)
    linked_G[cell_row[shared_U[cell_group]]] = True
    held_U = torch.zeros(num_groups, dtype=torch.bool)
    held_U[cell_group] = True
    docs = torch.where(is_positive, linked_G[owner], held_U[doc_group])
    return linked_G.nonzero()[:, 0], docs.nonzero()[:, 0]


def held_by_several(row_n: Tensor, text_n: Tensor, num_texts: int) -> Tensor:
    """Whether each text stands in several rows, bool [num_texts]; twice in one row counts once.

    Args:
        row_n: int64 [n], rows.
        text_n: int64 [n], the number of a text that the row has.
        num_texts: above all of these.
    """
    distinct = torch.unique(row_n * num_texts + text_n)
    return torch.bincount(distinct % num_texts, minlength=num_texts) > 1
