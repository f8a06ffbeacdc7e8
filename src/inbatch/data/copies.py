"""Equal texts of a batch whose rows have lists: each is tokenized and embedded once.

Shape letters: T texts of the batch, E distinct ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from inbatch.batch.documents import Documents
from inbatch.data.plan.permutation import mix64

T = TypeVar("T")

QUERY, POSITIVE, NEGATIVE = range(3)


class Distinct(NamedTuple):
    """The distinct texts of a batch, in the order in which they first occur."""

    places: np.ndarray  # int64 [E], where each stands among the T texts
    copies: np.ndarray | None  # int64 [T], which of them each text is; None where all differ


def role_of_texts(documents: Documents) -> np.ndarray:
    """Whether each text is a query, a positive or a negative, int64 [T] in the flat order of `Documents`."""
    of_documents = np.where(documents.is_positive, POSITIVE, NEGATIVE)
    return np.concatenate([np.full(len(documents.counts), QUERY), of_documents])


def distinct_texts(text_ids_T: np.ndarray, prompts_T: np.ndarray) -> Distinct:
    """The texts that differ from each other, or in their prompts.

    Args:
        text_ids_T: hashes of the texts, uint64.
        prompts_T: number of the prompt of each.
    """
    keys = mix64(text_ids_T + mix64(prompts_T.astype(np.uint64)))
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(keys):
        return Distinct(np.arange(len(keys)), None)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return Distinct(first[order], number[inverse])


def number_prompts(*prompts: Sequence[str]) -> np.ndarray:
    """A number for each role, int64 [3], equal where the prompts of several encoders are.

    Args:
        prompts: of each encoder, by column; rows may have one column, or two.
    """
    of_roles = list(zip(*(by_role(each) for each in prompts)))
    known = list(dict.fromkeys(of_roles))
    return np.array([known.index(each) for each in of_roles])


def by_role(of_columns: Sequence[T]) -> tuple[T, T, T]:
    """Of values by column those by role; the negatives of all columns share that of the first."""
    last = len(of_columns) - 1
    return of_columns[0], of_columns[min(1, last)], of_columns[min(2, last)]
