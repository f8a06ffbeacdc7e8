"""Checks rows with lists of documents once, at loading. Shape letters: n rows of a block, M texts.

As checks.py, for what lists add: rows without a positive, empty texts inside a list, lists inside lists, and
lists of scores that are longer or shorter than the texts that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.data.hashing import hash_texts
from inbatch.data.sources.checks import OnEmpty, Place, check_key_type, is_blank, refuse_row
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import columns_key, to_set
from inbatch.data.sources.lists import Texts, is_list, is_text, texts_of
from inbatch.errors import ConfigError

_BLOCK_ROWS = 1 << 16


class CheckedLists(NamedTuple):
    """A table whose rows can all be used, and how many rows and texts of the other rows were left out."""

    dataset: datasets.Dataset
    dropped_rows: int
    dropped_texts: int


class Fault(NamedTuple):
    """What is wrong in some rows of a block."""

    what: str
    column: str
    wrong_n: np.ndarray  # bool [n]
    fix: str | None = None  # None: fill it, or drop it

    @property
    def droppable(self) -> bool:
        """Whether `on_empty` decides."""
        return self.fix is None


def checked_lists(
    dataset: datasets.Dataset, roles: Roles, *, on_empty: OnEmpty, place: Place
) -> CheckedLists:
    """The rows that can be used; with ``on_empty="drop"`` a copy of them, where some cannot.

    Raises:
        ConfigError: A column that holds neither texts nor lists of them, scores that do not fit their texts,
            or, with ``on_empty="error"``, a row without query or positive, or an empty text.
    """
    _check_types(dataset.data.table, roles, place)
    rows = texts = first = 0
    for block in _blocks(dataset.data.table, roles):
        keep_n, num_blank_n = np.ones(block.num_rows, bool), np.zeros(block.num_rows, np.int64)
        if on_empty == "drop":
            keep_n, num_blank_n = _kept(block, roles)
        for fault in _faults(block, roles):
            wrong = np.flatnonzero(fault.wrong_n & keep_n)
            if len(wrong) and not (on_empty == "drop" and fault.droppable):
                row = first + int(wrong[0])
                refuse_row(fault.what, fault.column, row, place, fix=fault.fix)
        rows += int((~keep_n).sum())
        texts += int(num_blank_n[keep_n].sum())
        first += block.num_rows
    if rows or texts:
        dataset = _cleaned(dataset, roles)
    return CheckedLists(dataset, rows, texts)


def _blocks(table: pa.Table, roles: Roles) -> Iterator[pa.RecordBatch]:
    yield from table.select(list(roles.used)).to_batches(max_chunksize=_BLOCK_ROWS)


def _check_types(table: pa.Table, roles: Roles, place: Place) -> None:
    for number, name in enumerate(roles.texts):
        kind = table.column(name).type
        inner = kind.value_type if is_list(kind) and number else kind
        absent = name in roles.negatives or is_list(kind)
        if is_text(inner) or (absent and pa.types.is_null(inner)):
            continue
        if is_list(inner) and number:
            problem, fix = "lists inside lists", "give each row one list of texts"
        elif is_list(inner):
            problem, fix = "lists, and a row has one query", "store one query a row"
        else:
            problem, fix = f"{kind} instead of texts or lists of texts", "store it as strings"
        role = roles.role(number)
        raise ConfigError(
            columns_key(place.field),
            f"uses column '{name}', which holds {problem}",
            f"{fix}, or set {to_set(place.field, f'columns.{role}')} to another column",
        )
    if roles.negative_score is not None and len(roles.negatives) != 1:
        raise ConfigError(
            f"{columns_key(place.field)}.negative_score",
            f"belongs to one column of negatives, and there are {len(roles.negatives)}",
            "leave it out, or keep all negatives in one column of lists",
            value=roles.negative_score,
        )
    for name in filter(None, (roles.positive_score, roles.negative_score)):
        kind = table.column(name).type
        inner = kind.value_type if is_list(kind) else kind
        numbers = pa.types
        if not (numbers.is_floating(inner) or numbers.is_integer(inner) or numbers.is_null(inner)):
            raise ConfigError(
                columns_key(place.field),
                f"uses column '{name}', which holds {kind} instead of lists of scores",
                "store numbers, one for each text, or leave the column out",
            )
    check_key_type(table, roles, place)


def _faults(block: pa.RecordBatch, roles: Roles) -> Iterator[Fault]:
    """What may be wrong in a block, in the order in which it is reported."""
    yield Fault("an empty text", roles.query, is_blank(block.column(roles.query)))
    found = {name: texts_of(block.column(name)) for name in roles.texts[1:]}
    positives = found[roles.positive]
    yield Fault("no positive", roles.positive, positives.counts == 0)
    for name, texts in found.items():
        yield Fault("an empty text", name, _blanks_of_rows(texts) > 0)
    if roles.key is not None:
        yield Fault("no key (null)", roles.key, ~_is_valid(block.column(roles.key)))
    negatives_n = sum(found[name].counts for name in roles.negatives)
    for score, counts_n, what in (
        (roles.positive_score, positives.counts, "positives"),
        (roles.negative_score, negatives_n, "negatives"),
    ):
        if score is not None:
            scores = texts_of(block.column(score))
            message = f"another number of scores than of {what}"
            fix = "give each text one, or leave the column out"
            yield Fault(message, score, scores.counts != counts_n, fix)
            yield Fault("a score that is no number", score, _missing_of_rows(scores) > 0, fix)


def _blanks_of_rows(texts: Texts) -> np.ndarray:
    """Texts of each row that are null, empty or white space only, int64 [n]."""
    return np.bincount(texts.owner[is_blank(texts.values)], minlength=len(texts.counts))


def _missing_of_rows(scores: Texts) -> np.ndarray:
    missing = pc.fill_null(pc.is_nan(pc.cast(scores.values, pa.float64())), True)
    return np.bincount(scores.owner[missing.to_numpy(False)], minlength=len(scores.counts))


def _is_valid(array: pa.Array) -> np.ndarray:
    valid: np.ndarray = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _kept(block: pa.RecordBatch, roles: Roles) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stay without empty texts, bool [n], and the number of these in each row, int64 [n]."""
    keep_n = ~is_blank(block.column(roles.query))
    num_blank_n = np.zeros(block.num_rows, dtype=np.int64)
    for name in roles.texts[1:]:
        texts = texts_of(block.column(name))
        blank_n = _blanks_of_rows(texts)
        num_blank_n += blank_n
        if name == roles.positive:
            keep_n &= texts.counts > blank_n
    for name in filter(None, (roles.label, roles.key)):
        keep_n &= _is_valid(block.column(name))
    return keep_n, num_blank_n


def _cleaned(dataset: datasets.Dataset, roles: Roles) -> datasets.Dataset:
    """A copy without what cannot be used, beside the table where that is a file."""

    def clean(table: pa.Table) -> pa.Table:
        (block,) = table.combine_chunks().to_batches()
        return _clean(block, roles)

    key = f"{dataset._fingerprint}:{roles.used}:without empty texts"
    copied = (
        dataset.select_columns(list(roles.used))
        .with_format("arrow")
        .map(clean, batched=True, new_fingerprint=f"{int(hash_texts([key])[0]):016x}")
    )
    return copied.with_format(None)


def _clean(block: pa.RecordBatch, roles: Roles) -> pa.Table:
    keep_n, _ = _kept(block, roles)
    block = block.filter(pa.array(keep_n))  # whose scores fit
    columns = {name: block.column(name) for name in roles.used}
    for name in roles.texts[1:]:
        texts = texts_of(columns[name])
        kept = ~is_blank(texts.values)
        columns[name] = _lists(texts, kept)
        score = roles.positive_score if name == roles.positive else roles.negative_score
        if score is not None:
            columns[score] = _lists(texts_of(columns[score]), kept)
    return pa.table(columns)


def _lists(texts: Texts, kept_M: np.ndarray) -> pa.Array:
    """Lists of the kept values."""
    counts_n = np.bincount(texts.owner[kept_M], minlength=len(texts.counts))
    offsets = np.concatenate([[0], np.cumsum(counts_n)]).astype(np.int32)
    values = texts.values.filter(pa.array(kept_M))
    if pa.types.is_large_string(values.type):
        values = values.cast(pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), values)
