"""Corpus, queries and judgements from three files, or from a file of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inbatch.data.formats.template import fill, template_columns
from inbatch.data.sources.columns import Roles, suggest
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.files import Files, load_files, peek_columns, resolve_files
from inbatch.data.sources.locate import locate_rows
from inbatch.errors import ConfigError
from inbatch.evaluation.plain_tables import (
    TREC_SUFFIXES,
    Layout,
    layout_of,
    read_layout,
    suffix_of,
)
from inbatch.evaluation.retrieval_data import RetrievalData, make_retrieval_data
from inbatch.evaluation.retrieval_spec import RetrievalSpec

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
_KEYS = {
    "corpus": ("corpus_id", "corpus_text"),
    "queries": ("query_id", "query_text"),
    "qrels": ("qrels_query_id", "qrels_corpus_id", "grade"),
}


def read_retrieval_data(spec: RetrievalSpec, *, field: str) -> RetrievalData:
    """Read the files of `spec`.

    A corpus with the columns title and text is read by BEIR's rule, ``{title} {text}``; the notes of the
    result say so.

    Args:
        spec: the files, and how they count.
        field: configuration key of the evaluator, for messages.

    Raises:
        ConfigError: anything about files, columns, ids and grades that cannot be used.
    """
    for key in spec.columns:
        if key not in _NAMES:
            raise ConfigError(
                f"{field}.columns.{key}", "is not a valid key", suggest(str(key), list(_NAMES))
            )
    corpus = _table(spec, "corpus", field=field)
    queries = _table(spec, "queries", field=field)
    judged = _table(spec, "qrels", field=field)
    judgements = {
        pair: _grade(value, pair, field=field)
        for pair, value in zip(zip(*judged.ids), judged.values)
    }
    data = make_retrieval_data(
        _texts(queries, "queries", field=field),
        _texts(corpus, "corpus", field=field),
        judgements,
        limit=spec.limit,
        exclude_same_id=spec.exclude_same_id,
        field=field,
    )
    if corpus.template is None:
        return data
    return replace(data, notes=(f"documents are {corpus.template}", *data.notes))


@dataclass(frozen=True, slots=True)
class _Table:
    """Columns of one file.

    ids: one or two columns of them.
    values: texts, or grades.
    template: of the texts; None for a plain column.
    """

    ids: list[list[str]]
    values: list[Any]
    template: str | None


def _table(spec: RetrievalSpec, part: str, *, field: str) -> _Table:
    """Columns of one part."""
    place = f"{path_key(field)}.{part}"
    paths, layout = _plain(spec.files[part], part, field=place)
    if layout is not None:
        *ids, values = read_layout(paths, layout, field=place)
        return _Table(ids, values, None)
    files = resolve_files(spec.files[part], field=place)
    names = peek_columns(files, field=place)
    keys = {
        key: _column(key, names, spec.columns, part=part, field=field) for key in _KEYS[part][:-1]
    }
    if part == "qrels":
        return _judgements(files, names, list(keys.values()), spec.columns, field=field)
    (id_column,) = keys.values()
    template, wanted = _text_columns(names, spec.columns, part=part, field=field)
    roles = _roles([id_column, *wanted], None)
    columns = _load(files, roles, field=place)
    ids = [_filled_ids(columns[id_column], id_column, files, roles, field=place)]
    if template is None:
        return _Table(ids, columns[wanted[0]], None)
    records = zip(*(columns[name] for name in wanted))
    return _Table(ids, [_filled(template, wanted, record) for record in records], template)


def _judgements(
    files: Files,
    names: Sequence[str],
    id_columns: Sequence[str],
    chosen: Mapping[str, Any],
    *,
    field: str,
) -> _Table:
    """Ids and grades; a file without grades has 1 for all."""
    place = f"{path_key(field)}.qrels"
    known = {name.lower() for name in names} & set(_NAMES["grade"])
    grade = None
    if chosen.get("grade") is not None or known:
        grade = _column("grade", names, chosen, part="qrels", field=field)
    roles = _roles(id_columns, grade)
    columns = _load(files, roles, field=place)
    ids = [_filled_ids(columns[name], name, files, roles, field=place) for name in id_columns]
    return _Table(ids, columns[grade] if grade else [1.0] * len(ids[0]), None)


def _roles(texts: Sequence[str], number: str | None) -> Roles:
    """Roles that only say which columns to load: those of texts and ids, and one of numbers."""
    columns = list(dict.fromkeys(texts))
    return Roles(columns[0], columns[-1], negatives=tuple(columns[1:-1]), label=number)


def _load(files: Files, roles: Roles, *, field: str) -> dict[str, list[Any]]:
    """Columns by name."""
    table = load_files(files, roles, field=field).with_format("arrow")[:]
    return {name: table.column(name).to_pylist() for name in set(roles.used)}


def _plain(given: Any, part: str, *, field: str) -> tuple[list[str], Layout | None]:
    """Paths of files without a header and their layout; None for files that have one."""
    paths = [given] if isinstance(given, str) else [str(path) for path in given]
    if part != "qrels" or not all(suffix_of(path) in TREC_SUFFIXES for path in paths):
        paths = list(resolve_files(paths, field=field).paths)
    return paths, layout_of(paths[0], part, field=field)


def _filled_ids(
    column: list[Any], name: str, files: Files, roles: Roles, *, field: str
) -> list[str]:
    if None in column:
        ((path, place),) = locate_rows(files, roles, [column.index(None)])
        raise ConfigError(
            field, f"has no id (null) in column '{name}', {place}", "fill it", value=path
        )
    return [str(value) for value in column]


def _filled(template: str, names: Sequence[str], values: Iterable[Any]) -> str | None:
    """The text of a row; None if it has none of the values, as a null in a plain column."""
    record = dict(zip(names, values))
    if all(value is None for value in record.values()):
        return None
    return fill(template, record)


def _texts(table: _Table, part: str, *, field: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for key, text in zip(table.ids[0], table.values):
        if key in texts:
            raise ConfigError(
                f"{path_key(field)}.{part}", f"holds the id {key!r} twice", "keep one of its rows"
            )
        if not isinstance(text, str):
            raise ConfigError(
                f"{path_key(field)}.{part}",
                f"has {text!r} as the text of {key!r}",
                f"give a text, or name another column as {field}.columns.{_KEYS[part][1]}",
            )
        texts[key] = text
    return texts


def _text_columns(
    names: Sequence[str], chosen: Mapping[str, Any], *, part: str, field: str
) -> tuple[str | None, list[str]]:
    """The template of the texts, None for a plain column, and the columns that it takes."""
    key = _KEYS[part][1]
    given = chosen.get(key)
    by_lower = {name.lower(): name for name in names}
    if given is None and part == "corpus" and {"title", "text"} <= by_lower.keys():
        given = f"{{{by_lower['title']}}} {{{by_lower['text']}}}"
    wanted = template_columns(str(given)) if given is not None and given not in names else ()
    for name in wanted:
        if name not in names:
            raise ConfigError(
                f"{field}.columns.{key}",
                f"names '{name}', which is not a column of {path_key(field)}.{part}",
                suggest(name, names),
                value=given,
            )
    if wanted:
        return str(given), list(wanted)
    return None, [_column(key, names, chosen, part=part, field=field)]


def _column(
    key: str, names: Sequence[str], chosen: Mapping[str, Any], *, part: str, field: str
) -> str:
    if (given := chosen.get(key)) is not None:
        if given not in names:
            raise ConfigError(
                f"{field}.columns.{key}",
                f"is not a column of {path_key(field)}.{part}",
                suggest(str(given), names),
                value=given,
            )
        return str(given)
    by_lower = {name.lower(): name for name in names}
    found = [by_lower[name] for name in _NAMES[key] if name in by_lower]
    if len(found) == 1:
        return found[0]
    count = "several" if found else "none"
    raise ConfigError(
        f"{path_key(field)}.{part}",
        f"has the columns {list(names)}, {count} of which could be its {key}",
        f"name one as {field}.columns.{key}",
    )


def _grade(value: Any, pair: tuple[str, ...], *, field: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{path_key(field)}.qrels",
            f"has {value!r} as the grade of {pair}",
            f"give a number, or name another column as {field}.columns.grade",
        ) from None
