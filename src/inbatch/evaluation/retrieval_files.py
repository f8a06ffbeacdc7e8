"""Corpus, queries and judgements from three files, or from a file of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inbatch.data.sources.columns import Roles, suggest
from inbatch.data.sources.files import KINDS, load_files, peek_columns, resolve_files
from inbatch.errors import ConfigError
from inbatch.evaluation.retrieval_data import (
    RetrievalData,
    make_retrieval_data,
    retrieval_data_of_pairs,
)
from inbatch.evaluation.rows import RowSource, read_texts

_PARTS = ("corpus", "queries", "qrels")
# Names that are recognised for each key of `columns`, those of BEIR and of MS MARCO among them.
_QUERY_IDS = ("qid", "query_id", "query-id")
_DOCUMENT_IDS = ("did", "doc_id", "docid", "corpus_id", "corpus-id", "document_id", "pid")
_TEXTS = ("text", "contents", "document", "passage", "query", "question")
_NAMES = {
    "corpus_id": (*_DOCUMENT_IDS, "_id", "id"),
    "corpus_text": _TEXTS,
    "query_id": (*_QUERY_IDS, "_id", "id"),
    "query_text": _TEXTS,
    "qrels_query_id": _QUERY_IDS,
    "qrels_corpus_id": _DOCUMENT_IDS,
    "grade": ("grade", "score", "relevance", "label"),
}


def read_retrieval_data(
    path: RowSource | Mapping[str, Any],
    *,
    columns: Mapping[str, Any] | None,
    limit: int | None,
    field: str,
) -> RetrievalData:
    """Read what `InformationRetrievalEvaluator` takes as `path`, see there.

    Raises:
        ConfigError: anything about files, columns, ids and grades that cannot be used.
    """
    if limit is not None and limit < 1:
        raise ConfigError(
            f"{field}.limit", "is below 1", "set at least 1, or null for all", value=limit
        )
    if isinstance(path, Mapping) and set(path) & set(_PARTS):
        return _from_files(path, columns=columns, limit=limit, field=field)
    if isinstance(path, str) and Path(path).is_dir():
        return _from_files(_find(path, field=field), columns=columns, limit=limit, field=field)
    rows = read_texts(path, columns=columns, limit=None, field=field)
    return retrieval_data_of_pairs(rows.texts, rows.labels, limit=limit, field=field)


def _find(folder: str, *, field: str) -> dict[str, str]:
    """The three files of a folder; judgements may be in a folder ``qrels`` in it, as in BEIR."""
    found = {}
    for part in _PARTS:
        matches = [
            str(match)
            for pattern in (f"{part}.*", f"{part}/*.*")
            for match in sorted(Path(folder).glob(pattern))
            if match.suffix in KINDS or match.stem.endswith(tuple(KINDS))
        ]
        if len(matches) != 1:
            seen = (
                f"several files of {part} ({', '.join(matches)})"
                if matches
                else f"no file of {part}"
            )
            raise ConfigError(
                f"{field}.path",
                f"holds {seen}",
                f"give {field}.path as {{corpus: ..., queries: ..., qrels: ...}}",
                value=folder,
            )
        found[part] = matches[0]
    return found


def _from_files(
    paths: Mapping[str, Any],
    *,
    columns: Mapping[str, Any] | None,
    limit: int | None,
    field: str,
) -> RetrievalData:
    if set(paths) != set(_PARTS):
        raise ConfigError(
            f"{field}.path", f"has the keys {sorted(paths)}", f"give {', '.join(_PARTS)}"
        )
    chosen = dict(columns or {})
    for key in chosen:
        if key not in _NAMES:
            raise ConfigError(
                f"{field}.columns.{key}", "is not a valid key", suggest(str(key), list(_NAMES))
            )
    corpus = _read_texts(paths, "corpus", ("corpus_id", "corpus_text"), chosen, field=field)
    queries = _read_texts(paths, "queries", ("query_id", "query_text"), chosen, field=field)
    keys = ("qrels_query_id", "qrels_corpus_id", "grade")
    *ids, grades = _read(paths, "qrels", keys, chosen, field=field)
    judgements: dict[tuple[str, str], float] = {}
    for pair, value in zip(zip(*ids), grades):
        grade = _grade(value, pair, field=field)
        judgements[pair] = max(grade, judgements.get(pair, grade))
    return make_retrieval_data(queries, corpus, judgements, limit=limit, field=field)


def _read_texts(
    paths: Mapping[str, Any],
    part: str,
    keys: tuple[str, str],
    chosen: Mapping[str, Any],
    *,
    field: str,
) -> dict[str, str]:
    texts: dict[str, str] = {}
    for key, text in zip(*_read(paths, part, keys, chosen, field=field)):
        if key in texts:
            raise ConfigError(
                f"{field}.path.{part}", f"holds the id {key!r} twice", "keep one of its rows"
            )
        if not isinstance(text, str):
            raise ConfigError(
                f"{field}.path.{part}",
                f"has {text!r} as the text of {key!r}",
                f"give a text, or name another column as {field}.columns.{keys[1]}",
            )
        texts[key] = text
    return texts


def _read(
    paths: Mapping[str, Any],
    part: str,
    keys: Sequence[str],
    chosen: Mapping[str, Any],
    *,
    field: str,
) -> list[list[Any]]:
    """Columns of one file: ids as strings, then the values; a file without grades has 1 for all."""
    place = f"{field}.path.{part}"
    files = resolve_files(paths[part], field=place)
    names = peek_columns(files, field=place)
    found = [_column(key, names, chosen, part=part, field=field) for key in keys]
    columns = [name for name in found if name is not None]
    # Roles only say which columns to load: two ids and a grade, or an id and a text.
    roles = Roles(columns[0], columns[1], label=columns[2] if len(columns) > 2 else None)
    table = load_files(files, roles, field=place).with_format("arrow")[:]
    values = [table.column(name).to_pylist() for name in columns]
    if len(columns) < len(keys):
        values.append([1.0] * len(values[0]))
    for name, column in zip(columns, values[:-1]):
        if None in column:
            raise ConfigError(
                place,
                f"has no id (null) in column '{name}', row {column.index(None)} (counted from 0)",
                "fill it",
            )
    return [*([str(value) for value in column] for column in values[:-1]), values[-1]]


def _column(
    key: str, names: Sequence[str], chosen: Mapping[str, Any], *, part: str, field: str
) -> str | None:
    if (given := chosen.get(key)) is not None:
        if given not in names:
            raise ConfigError(
                f"{field}.columns.{key}",
                f"is not a column of {field}.path.{part}",
                suggest(str(given), names),
                value=given,
            )
        return str(given)
    by_lower = {name.lower(): name for name in names}
    found = [by_lower[name] for name in _NAMES[key] if name in by_lower]
    if len(found) == 1:
        return found[0]
    if key == "grade" and not found:
        return None
    count = "several" if found else "none"
    raise ConfigError(
        f"{field}.path.{part}",
        f"has the columns {list(names)}, {count} of which could be its {key}",
        f"name one as {field}.columns.{key}",
    )


def _grade(value: Any, pair: tuple[str, str], *, field: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{field}.path.qrels",
            f"has {value!r} as the grade of {pair}",
            f"give a number, or name another column as {field}.columns.grade",
        ) from None
