"""Retrieval sets of one data set on the hub, in the layout of NanoBEIR.

Its subsets are ``corpus``, ``queries`` and ``qrels``, whose splits are the sets, as NanoSciFact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from inbatch.data.sources.columns import suggest
from inbatch.data.sources.files import LOAD_ERRORS
from inbatch.errors import ConfigError
from inbatch.evaluation.retrieval_data import RetrievalData, make_retrieval_data

NANO_BEIR = "sentence-transformers/NanoBEIR"
_COLUMNS = {
    "corpus_id": "_id",
    "corpus_text": "text",
    "query_id": "_id",
    "query_text": "text",
    "qrels_query_id": "query-id",
    "qrels_corpus_id": "corpus-id",
}
_LANGUAGE = re.compile(r"nanobeir(?:-(\w+))?", re.IGNORECASE)


def hub_name(name: str) -> str | None:
    """The data set that ``NanoBEIR`` (English) or ``NanoBEIR-de`` names; None for any other name."""
    match = _LANGUAGE.fullmatch(name)
    return None if match is None else f"{NANO_BEIR}-{(match[1] or 'en').lower()}"


def sets_of(hub: str, chosen: Sequence[str] | None, *, field: str) -> list[str]:
    """Splits of a data set.

    Args:
        hub: its name, or a folder of the same layout.
        chosen: sets by name, with or without "Nano" and in any case; None for all.
        field: configuration key of the evaluator, for messages.

    Raises:
        ConfigError: it cannot be had, or has no set of a name.
    """
    try:
        splits = [str(name) for name in datasets.get_dataset_split_names(hub, "corpus")]
    except LOAD_ERRORS as error:
        raise _not_loaded(hub, error, field=field) from error
    if chosen is None:
        return splits
    by_short = {_short(split): split for split in splits}
    for name in chosen:
        if _short(str(name)) not in by_short:
            raise ConfigError(
                f"{field}.sets", f"is not a set of {hub}", suggest(str(name), splits), value=name
            )
    return [by_short[_short(str(name))] for name in chosen]


def read_hub_set(
    hub: str, split: str, *, columns: Mapping[str, Any], limit: int | None, field: str
) -> RetrievalData:
    """One set: empty texts are left out, a row of judgements may have a list of documents.

    Args:
        hub: name of the data set.
        split: the set.
        columns: names of columns by the keys of `_COLUMNS`, where they are others.
        limit: the first queries only.
        field: see `sets_of`.

    Raises:
        ConfigError: it cannot be had, or has other columns.
    """
    for key in columns:
        if key not in _COLUMNS:
            raise ConfigError(
                f"{field}.columns.{key}", "is not a valid key", suggest(str(key), list(_COLUMNS))
            )
    names = {key: str(columns.get(key, name)) for key, name in _COLUMNS.items()}
    corpus = _texts(hub, "corpus", split, names["corpus_id"], names["corpus_text"], field=field)
    queries = _texts(hub, "queries", split, names["query_id"], names["query_text"], field=field)
    judgements: dict[tuple[str, str], float] = {}
    query, judged = names["qrels_query_id"], names["qrels_corpus_id"]
    for row in _rows(hub, "qrels", split, (query, judged), field=field):
        documents = row[judged]
        for document in documents if isinstance(documents, list) else [documents]:
            judgements[row[query], document] = 1.0
    return make_retrieval_data(queries, corpus, judgements, limit=limit, field=field)


def _texts(hub: str, part: str, split: str, id_: str, text: str, *, field: str) -> dict[str, str]:
    rows = _rows(hub, part, split, (id_, text), field=field)
    return {row[id_]: row[text] for row in rows if row[text]}


def _rows(
    hub: str, part: str, split: str, columns: Sequence[str], *, field: str
) -> list[dict[str, Any]]:
    try:
        table = datasets.load_dataset(hub, part, split=split)
    except LOAD_ERRORS as error:
        raise _not_loaded(hub, error, field=field) from error
    if missing := [name for name in columns if name not in table.column_names]:
        raise ConfigError(
            f"{field}.hub",
            f"has no column {missing[0]!r} in subset {part}, split {split}",
            "name a data set in the layout of NanoBEIR",
            value=hub,
        )
    return list(table.select_columns(list(columns)))


def _not_loaded(hub: str, error: Exception, *, field: str) -> ConfigError:
    reason = str(error).splitlines()[0].rstrip(".")
    return ConfigError(
        f"{field}.hub",
        f"cannot be loaded ({reason})",
        f"check the name and the connection, or download it there and set {field}.hub to its folder",
        value=hub,
    )


def _short(name: str) -> str:
    return name.lower().removeprefix("nano")
