"""Files of negatives: ids of documents by query."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from inbatch.data.formats.base import BadRecordError, fields_of, shown
from inbatch.data.formats.id_files import read_lines

_QUERY_IDS = ("qid", "query_id", "query-id", "_id", "id")
_NEGATIVES = ("neg", "negatives", "negative", "negative_ids", "neg_ids")


def read_negatives(
    path: str, *, field: str, refuse: Callable[[BadRecordError, int], None]
) -> Iterator[tuple[int, str, str]]:
    """Line, query and document of each negative.

    Args:
        path: Lines of two or more fields (query, document), of six (a TREC run), or of JSON: a query with a
            list of documents, or with lists by the system that found them, as in msmarco-hard-negatives.
        field: Configuration key, for messages.
        refuse: Called with what is wrong with a line that is none of these, and its number.
    """
    is_json = path.removesuffix(".gz").endswith((".jsonl", ".json", ".ndjson"))
    for number, line in read_lines(path, field=field):
        try:
            found = _of_json(line) if is_json else _of_fields(line, first=number == 1)
        except BadRecordError as error:
            refuse(error, number)
            continue
        yield from ((number, query, document) for query, document in found)


def _of_fields(line: str, *, first: bool) -> list[tuple[str, str]]:
    fields = line.split("\t") if "\t" in line else line.split()
    if first and fields[0].lower() in _QUERY_IDS:
        return []
    if len(fields) == 6:  # query Q0 document rank score system
        return [(fields[0], fields[2])]
    if len(fields) < 2:
        raise BadRecordError(
            f"has {len(fields)} field", "give a query and a document, with a tab between"
        )
    return [(fields[0], fields[1])]


def _of_json(line: str) -> list[tuple[str, str]]:
    try:
        record = fields_of(json.loads(line))
    except json.JSONDecodeError as error:
        raise BadRecordError(f"is not JSON ({error.msg})", "correct it") from error
    query, documents = _first(record, _QUERY_IDS), _first(record, _NEGATIVES)
    lists = list(documents.values()) if isinstance(documents, Mapping) else [documents]
    if query is None or not all(isinstance(each, list) for each in lists):
        raise BadRecordError(
            f"has {shown(query)} as the query and {shown(documents)} as its negatives",
            'write {"qid": ID, "neg": [ID, ...]}',
        )
    ids = dict.fromkeys(str(document) for each in lists for document in each)
    return [(str(query), document) for document in ids]


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if name in record), None)
