"""Texts that an in-batch loss would take for negatives although rows with lists say otherwise.

Shape letters: B rows of a batch, S cells (query and positives of its rows), M negatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from inbatch.data.plan.plan import Plan, looked_at
from inbatch.data.ragged import RaggedValues, spans
from inbatch.data.report.values import FalseNegatives

_MOST_EXAMPLES = 3


class Lists(NamedTuple):
    """Texts of rows with lists. Shape letter: N rows.

    texts: 64-bit hashes of each row's query, positives and negatives, in this order.
    positives_N: positives of each row.
    """

    texts: RaggedValues
    positives_N: np.ndarray

    def split(self, rows_B: np.ndarray) -> tuple[RaggedValues, RaggedValues]:
        """Query and positives of these rows, and their negatives."""
        taken = self.texts.take(rows_B)
        known_B = 1 + np.asarray(self.positives_N[rows_B], dtype=np.int64)
        place_T = spans(0, taken.lengths)
        known_T = place_T < np.repeat(known_B, taken.lengths)
        return (
            RaggedValues(taken.values[known_T], _offsets(known_B)),
            RaggedValues(taken.values[~known_T], _offsets(taken.lengths - known_B)),
        )


class Found(NamedTuple):
    """What one batch holds; rows are numbers in the batch."""

    shared_B: np.ndarray  # bool, a text of the row's query and positives is one of another row's
    own_M: np.ndarray  # bool, the negative equals the query or a positive of its row
    others_M: np.ndarray  # bool, ... of another row
    owner_M: np.ndarray  # row of each negative
    holder_M: np.ndarray  # another row that holds it, where `others_M`


def find_false_negatives(known: RaggedValues, negatives: RaggedValues) -> Found:
    """Compare the texts of a batch by their hashes.

    Args:
        known: query and positives of its B rows.
        negatives: of the same rows.
    """
    num_rows = known.num_rows
    texts, text_S = np.unique(known.values, return_inverse=True)
    owner_S = np.repeat(np.arange(num_rows), known.lengths)
    pairs = np.unique(text_S * num_rows + owner_S)  # a text twice in one row is one
    text_P, owner_P = np.divmod(pairs, num_rows)
    holders = np.bincount(text_P, minlength=len(texts))
    shared_B = np.zeros(num_rows, dtype=bool)
    shared_B[owner_P[holders[text_P] > 1]] = True

    owner_M = np.repeat(np.arange(num_rows), negatives.lengths)
    text_M = np.minimum(np.searchsorted(texts, negatives.values), len(texts) - 1)
    is_known_M = texts[text_M] == negatives.values
    own_M = is_known_M & np.isin(text_M * num_rows + owner_M, pairs)
    others_M = is_known_M & (holders[text_M] > own_M)
    first = np.cumsum(holders) - holders  # of each text in `pairs`
    last_M = (first + holders - 1)[text_M]
    holder_M = np.where(owner_P[first[text_M]] == owner_M, owner_P[last_M], owner_P[first[text_M]])
    return Found(shared_B, own_M, others_M, owner_M, holder_M)


def false_negatives(
    lists: Lists, plans: Mapping[str, Plan], *, source: str
) -> tuple[FalseNegatives, ...]:
    """False negatives of a source in the batches of each plan; 16 batches of each are looked at.

    Args:
        lists: of the source.
        plans: by the name of their sampler.
        source: its name.
    """
    return tuple(
        _count(name, lists, looked_at(plan, source=source)) for name, plan in plans.items()
    )


def _count(sampler: str, lists: Lists, batches: Sequence[np.ndarray]) -> FalseNegatives:
    num_rows = num_shared = num_batches = num_negatives = num_own = num_others = 0
    examples: list[tuple[int, int, int]] = []
    for rows in batches:
        known, negatives = lists.split(rows)
        found = find_false_negatives(known, negatives)
        num_rows, num_negatives = num_rows + len(rows), num_negatives + len(found.own_M)
        num_shared += int(found.shared_B.sum())
        num_batches += bool(found.shared_B.any())
        num_own, num_others = (
            num_own + int(found.own_M.sum()),
            num_others + int(found.others_M.sum()),
        )
        for place in np.flatnonzero(found.others_M)[: _MOST_EXAMPLES - len(examples)].tolist():
            owner = int(found.owner_M[place])
            inside = place - int(negatives.offsets[owner])
            holder = int(rows[found.holder_M[place]])
            examples.append((int(rows[owner]), inside, holder))
    return FalseNegatives(
        sampler=sampler,
        num_batches=len(batches),
        batch_share=num_batches / max(len(batches), 1),
        row_share=num_shared / max(num_rows, 1),
        own_share=num_own / max(num_negatives, 1),
        other_share=num_others / max(num_negatives, 1),
        examples=tuple(examples),
    )


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.append(0, np.cumsum(lengths))
