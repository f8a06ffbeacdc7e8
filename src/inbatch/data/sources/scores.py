"""Scores that a teacher gave the documents of rows, from columns beside those of the texts.

A score belongs to the document at its place: those of `positive_score` to the positives, those of
`negative_score` to the negatives. A document without one, or a row without any, has NaN.

Shape letters: N rows, n rows of a block, C text columns, M documents, m scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.data.ragged import spans
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import columns_key, to_set
from inbatch.data.sources.lists import BLOCK_ROWS, is_list, is_text, texts_of
from inbatch.data.sources.texts import NUMBER
from inbatch.errors import ConfigError

_NONE = ("", "nan", "null", "none")  # texts of a csv file that are no score


class Scores(NamedTuple):
    """The scores of one column in a block of rows."""

    given_n: np.ndarray  # bool [n], whether the row has any
    counts_n: np.ndarray  # int64 [n]
    values: np.ndarray  # float64 [m], NaN for none and for wrong ones
    wrong: np.ndarray  # bool [m], something is there that float32 does not hold as a finite number

    def of(self, documents_n: np.ndarray) -> np.ndarray:
        """Scores of so many documents of each row, float64 [M]; NaN where a row has not as many."""
        fits_n = self.counts_n == documents_n
        out = np.full(int(documents_n.sum()), np.nan)
        out[np.repeat(fits_n, documents_n)] = self.values[np.repeat(fits_n, self.counts_n)]
        return out

    def faults(self, documents_n: np.ndarray, what: str) -> Iterator[tuple[str, np.ndarray]]:
        """What is wrong in which rows, bool [n], that have so many documents of a kind."""
        uneven_n = self.given_n & (self.counts_n != documents_n)
        yield f"another number of scores than of {what}", uneven_n
        owner = np.repeat(np.arange(len(self.counts_n)), self.counts_n)
        wrong_n = np.bincount(owner[self.wrong], minlength=len(self.counts_n)) > 0
        yield "a score that is no finite number", wrong_n


def scores_of(array: pa.Array) -> Scores:
    """The scores of a column, which holds numbers, texts that read as such, or lists of numbers."""
    counts_n, values = texts_of(array)
    absent = np.array(values.is_null())
    if is_text(values.type):
        values = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        absent |= pc.is_in(values, pa.array(_NONE, values.type)).to_numpy(zero_copy_only=False)
        values = pc.if_else(pc.match_substring_regex(values, NUMBER), values, None)
        numbers = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)
    else:
        numbers = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        absent |= np.isnan(numbers)
    with np.errstate(over="ignore"):
        wrong = ~absent & ~np.isfinite(numbers.astype(np.float32))
    given_n = array.is_valid().to_numpy(zero_copy_only=False)
    return Scores(given_n, counts_n, np.where(absent | wrong, np.nan, numbers), wrong)


def check_types(table: pa.Table, roles: Roles, *, texts: bool, field: str) -> None:
    """Check that columns of scores hold numbers.

    Args:
        table: the rows.
        roles: of its columns.
        texts: whether numbers may be written as texts, as in csv files.
        field: configuration key of the source.

    Raises:
        ConfigError: one holds something else, or there is not one column of negatives for one of scores.
    """
    if roles.negative_score is not None:
        check_negatives(roles, roles.negative_score, field=field)
    for role, name in (
        ("positive_score", roles.positive_score),
        ("negative_score", roles.negative_score),
    ):
        if name is None:
            continue
        kind = table.column(name).type
        inner = kind.value_type if is_list(kind) else kind
        kinds = pa.types
        numbers = kinds.is_floating(inner) or kinds.is_integer(inner) or kinds.is_null(inner)
        if not (numbers or (texts and is_text(kind))):
            raise ConfigError(
                columns_key(field),
                f"uses column '{name}', which holds {kind} instead of scores or lists of them",
                f"store numbers, one for each text, or set {to_set(field, f'columns.{role}=null')}",
            )


def check_negatives(roles: Roles, name: str, *, field: str) -> None:
    """Check that there is one column of negatives for a column of their scores.

    Raises:
        ConfigError: there is none, or there are several.
    """
    if len(roles.negatives) != 1:
        raise ConfigError(
            f"{columns_key(field)}.negative_score",
            f"belongs to one column of negatives, and there are {len(roles.negatives)}",
            "leave it out, or keep all negatives in one column of lists",
            value=name,
        )


def scores_of_lists(table: pa.Table, roles: Roles, out: np.ndarray) -> np.ndarray:
    """The score of each document of rows with lists, row by row, positives first: `out` [M], filled."""
    out[:] = np.nan
    start = 0
    used = table.select([*roles.texts[1:], *roles.scores])
    for block in used.to_batches(max_chunksize=BLOCK_ROWS):
        counts = [texts_of(block.column(name)).counts for name in roles.texts[1:]]
        positives_n, all_n = counts[0], np.sum(counts, axis=0)
        first_n = start + np.cumsum(all_n) - all_n
        for name, first, counts_n in (
            (roles.positive_score, first_n, positives_n),
            (roles.negative_score, first_n + positives_n, all_n - positives_n),
        ):
            if name is not None:
                out[spans(first, counts_n)] = scores_of(block.column(name)).of(counts_n)
        start += int(all_n.sum())
    return out


def scores_of_columns(table: pa.Table, roles: Roles) -> np.ndarray:
    """The score of each document of rows in columns, float32 [C - 1, N]."""
    out = np.full((len(roles.texts) - 1, table.num_rows), np.nan, dtype=np.float32)
    for scores_N, name in zip(out, (roles.positive_score, roles.negative_score)):
        if name is not None:
            chunks = [
                scores_of(chunk).of(np.ones(len(chunk), int)) for chunk in _chunks(table, name)
            ]
            scores_N[:] = np.concatenate(chunks)
    return out


def faults_of_columns(table: pa.Table, roles: Roles) -> Iterator[tuple[str, str, np.ndarray]]:
    """What is wrong with scores of rows in columns, the column, and in which rows, bool [N]."""
    for name, what in ((roles.positive_score, "positives"), (roles.negative_score, "negatives")):
        if name is not None:
            found = [
                list(scores_of(chunk).faults(np.ones(len(chunk), int), what))
                for chunk in _chunks(table, name)
            ]
            for parts in zip(*found, strict=True):
                yield parts[0][0], name, np.concatenate([wrong_n for _, wrong_n in parts])


def _chunks(table: pa.Table, name: str) -> list[pa.Array]:
    column = table.column(name)
    return column.chunks or [pa.array([], column.type)]


def num_rows_without(scores: np.ndarray, offsets: np.ndarray, num_rows: int) -> int:
    """Rows of which some document has no score.

    Args:
        scores: of all documents of rows with lists, [M].
        offsets: where the texts of each row begin, its query among them, [N + 1] or more.
        num_rows: N.
    """
    count = 0
    for start in range(0, num_rows, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, num_rows) + 1)
        bounds = np.asarray(offsets[rows]) - rows
        missing = np.flatnonzero(np.isnan(scores[bounds[0] : bounds[-1]])) + bounds[0]
        count += len(np.unique(np.searchsorted(bounds, missing, side="right")))
    return count
