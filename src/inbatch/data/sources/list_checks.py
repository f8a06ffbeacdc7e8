"""Checks rows with lists of documents once, at loading. Shape letters: n rows of a block, M texts.

As checks.py, for what lists add: rows without a positive, empty texts inside a list, lists inside lists, and
lists of scores that are longer or shorter than the texts that they belong to. A text may have no score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa

from inbatch.data.hashing import hash_texts
from inbatch.data.sources.checks import (
    Choice,
    Place,
    check_key_type,
    drop_rows,
    is_blank,
    label_values,
    refuse_row,
)
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import columns_key, to_set
from inbatch.data.sources.dropped import BAD_ROW, Dropped, count_marks, merge
from inbatch.data.sources.lists import BLOCK_ROWS, Texts, is_list, is_text, texts_of
from inbatch.data.sources.scores import check_types, scores_of
from inbatch.errors import ConfigError
from inbatch.files import one_at_a_time


class CheckedLists(NamedTuple):
    """A table whose rows can all be used, the others by reason, and the texts left out of lists that stay."""

    dataset: datasets.Dataset
    dropped: tuple[Dropped, ...]
    dropped_texts: int


class Fault(NamedTuple):
    """What is wrong in some rows of a block. empty: nothing is there, so that `on_empty` decides."""

    what: str
    column: str
    wrong_n: np.ndarray  # bool [n]
    empty: bool = True
    fix: str = ""


def checked_lists(
    dataset: datasets.Dataset, roles: Roles, *, on_empty: Choice, on_bad_row: Choice, place: Place
) -> CheckedLists:
    """The rows that can be used; a copy of them, where some cannot, or have empty texts that are dropped.

    Args:
        dataset: The rows.
        roles: Of its columns.
        on_empty: "drop" leaves out empty texts, and rows that have no query, positive, label or key then.
        on_bad_row: "drop" leaves out rows that could not be read, and those with other faults.
        place: Of the rows, for messages.

    Raises:
        ConfigError: A column that holds neither texts nor lists of them; a fault that is not to be dropped.
    """
    _check_types(dataset.data.table, roles, place)
    labels_N = None
    if roles.label is not None:
        labels_N = label_values(dataset.data.column(roles.label), roles.label, place)
    keep_N = np.ones(dataset.num_rows, dtype=bool)
    marked: list[Sequence[Dropped]] = []
    wrong_rows: dict[tuple[str, str], list[np.ndarray]] = {}  # by fault and column
    texts = first = 0
    for block in _blocks(dataset.data.table, roles):
        keep_n = keep_N[first : first + block.num_rows]
        if BAD_ROW in block.schema.names:
            marks = block.column(BAD_ROW)
            keep_n &= ~_is_valid(marks)
            marked.append(count_marks(marks.drop_null().to_pylist()))
        labels_n = None if labels_N is None else labels_N[first : first + block.num_rows]
        for fault in _faults(block, roles, labels_n, drop=on_empty == "drop"):
            wrong = np.flatnonzero(fault.wrong_n & keep_n)
            if len(wrong) and (on_empty if fault.empty else on_bad_row) == "error":
                options: dict[str, Any] = {"empty": fault.empty, "fix": fault.fix}
                refuse_row(fault.what, fault.column, first + int(wrong[0]), roles, place, **options)
            keep_n[wrong] = False
            if len(wrong):
                wrong_rows.setdefault((fault.what, fault.column), []).append(first + wrong)
        if on_empty == "drop":  # else an empty text has ended the run
            texts += int(_num_blank(block, roles)[keep_n].sum())
        first += block.num_rows
    # At the end, since the files are read again for the places of each.
    found = [
        drop_rows(*at, np.concatenate(wrong), roles, place) for at, wrong in wrong_rows.items()
    ]
    dropped = merge([*marked, found])
    if dropped or texts:
        kinds = f"{on_empty}:{on_bad_row}"
        dataset = _cleaned(dataset, roles, np.flatnonzero(keep_N), kinds)
    return CheckedLists(dataset, dropped, texts)


def _blocks(table: pa.Table, roles: Roles) -> Iterator[pa.RecordBatch]:
    marks = [BAD_ROW] if BAD_ROW in table.column_names else []
    yield from table.select([*roles.used, *marks]).to_batches(max_chunksize=BLOCK_ROWS)


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
    check_types(table, roles, texts=False, field=place.field)
    check_key_type(table, roles, place)


def _faults(
    block: pa.RecordBatch, roles: Roles, labels_n: np.ndarray | None, *, drop: bool
) -> Iterator[Fault]:
    """What may be wrong in a block, in the order of reports; with `drop` empty texts go first."""
    yield Fault("an empty text", roles.query, is_blank(block.column(roles.query)))
    found = {name: texts_of(block.column(name)) for name in roles.texts[1:]}
    positives = found[roles.positive]
    none = _blanks_of_rows(positives) if drop else 0
    yield Fault("no positive", roles.positive, positives.counts == none)
    for name, texts in () if drop else found.items():
        yield Fault("an empty text", name, _blanks_of_rows(texts) > 0)
    if roles.label is not None and labels_n is not None:
        yield Fault("no label (null)", roles.label, ~_is_valid(block.column(roles.label)))
        yield Fault(
            "a label that is not a finite number", roles.label, ~np.isfinite(labels_n), empty=False
        )
    if roles.key is not None:
        yield Fault("no key (null)", roles.key, ~_is_valid(block.column(roles.key)))
    negatives_n = sum(
        (found[name].counts for name in roles.negatives), np.zeros_like(positives.counts)
    )
    for score, counts_n, what in (
        (roles.positive_score, positives.counts, "positives"),
        (roles.negative_score, negatives_n, "negatives"),
    ):
        if score is not None:
            fix = "give each text a number or null, leave the column out"
            for message, wrong_n in scores_of(block.column(score)).faults(counts_n, what):
                yield Fault(message, score, wrong_n, False, fix)


def _blanks_of_rows(texts: Texts) -> np.ndarray:
    """Texts of each row that are null, empty or white space only, int64 [n]."""
    return np.bincount(texts.owner[is_blank(texts.values)], minlength=len(texts.counts))


def _is_valid(array: pa.Array) -> np.ndarray:
    valid: np.ndarray = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _num_blank(block: pa.RecordBatch, roles: Roles) -> np.ndarray:
    """Empty texts in the lists of each row, int64 [n]."""
    found = [_blanks_of_rows(texts_of(block.column(name))) for name in roles.texts[1:]]
    return np.stack(found).sum(axis=0)


def _cleaned(
    dataset: datasets.Dataset, roles: Roles, rows: np.ndarray, kinds: str
) -> datasets.Dataset:
    """A copy of some rows without empty texts, beside the table where that is a file."""

    def clean(table: pa.Table) -> pa.Table:
        (block,) = table.combine_chunks().to_batches()
        return _clean(block, roles)

    key = f"{dataset._fingerprint}:{roles.signature}:{kinds}:cleaned"
    fingerprint = f"{int(hash_texts([key])[0]):016x}"
    with _alone(dataset, fingerprint):
        kept = dataset.select_columns(list(roles.used)).select(
            rows, new_fingerprint=f"{fingerprint}-rows"
        )
        copied = kept.with_format("arrow").map(clean, batched=True, new_fingerprint=fingerprint)
    return copied.with_format(None)


def _alone(dataset: datasets.Dataset, fingerprint: str) -> AbstractContextManager[None]:
    """While a copy is written: others find it then. A table in memory has none."""
    if not dataset.cache_files:
        return nullcontext()
    folder = Path(dataset.cache_files[0]["filename"]).parent
    return one_at_a_time(folder / f".cleaned-{fingerprint}.lock")


def _clean(block: pa.RecordBatch, roles: Roles) -> pa.Table:
    columns = {name: block.column(name) for name in roles.used}
    for name in roles.texts[1:]:
        texts = texts_of(columns[name])
        kept = ~is_blank(texts.values)
        columns[name] = _lists(texts, kept)
        score = roles.positive_score if name == roles.positive else roles.negative_score
        if score is not None:
            scores = scores_of(columns[score]).of(texts.counts)
            columns[score] = _lists(Texts(texts.counts, pa.array(scores)), kept)
    return pa.table(columns)


def _lists(texts: Texts, kept_M: np.ndarray) -> pa.Array:
    """Lists of the kept values."""
    counts_n = np.bincount(texts.owner[kept_M], minlength=len(texts.counts))
    offsets = np.concatenate([[0], np.cumsum(counts_n)]).astype(np.int32)
    values = texts.values.filter(pa.array(kept_M))
    if pa.types.is_large_string(values.type):
        values = values.cast(pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), values)
