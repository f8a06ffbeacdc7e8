"""BEIR folders as training data: a corpus, queries, judgements, and negatives where there is a file of them.

::

    FOLDER/corpus.jsonl       {"_id": "7", "title": "..", "text": ".."}
    FOLDER/queries.jsonl      {"_id": "q", "text": ".."}
    FOLDER/qrels/train.tsv    query-id, corpus-id, score

https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from inbatch.data.formats.base import BadRecordError, Head, IdRequest, Tally, fields_of, shown
from inbatch.data.formats.id_files import find_file, read_lines, required_file, write_texts
from inbatch.data.formats.id_lines import PairCollector
from inbatch.data.formats.id_pairs import PairFile
from inbatch.data.formats.id_rows import CORPUS, PAIRS, QUERIES, write_rows
from inbatch.data.formats.negatives import read_negatives
from inbatch.data.formats.passages import TITLE_AND_TEXT, check_template, passage_text
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.dropped import Intake

QRELS, NEGATIVES = "qrels", "negatives"


@final
@dataclass(frozen=True)
class Beir:
    """Queries with their relevant documents: one row for each query that has any.

    Documents judged 0 are left out and counted. Texts are looked up in the corpus, not copied.

    template: the text of a document; by default title and text with a space between, as BEIR has it.
    negatives: a file of ids of negatives, beside the others or anywhere: lines of a query and a document
        (tsv, or a TREC run), or {"qid": .., "neg": [..]} (jsonl; lists by system are joined).
    """

    template: str = TITLE_AND_TEXT
    negatives: str | None = None

    def __post_init__(self) -> None:
        check_template(self.template)

    def recognise(self, head: Head) -> str:
        """By a folder with a corpus, queries and judgements."""
        parts = ("corpus.jsonl", "queries.jsonl")
        if not head.is_folder or not all(find_file(head.path, part) for part in parts):
            return ""
        return f"the folder has a corpus, queries and qrels; a document's text is '{self.template}'"

    def files(self, request: IdRequest) -> dict[str, str]:
        """corpus, queries and qrels, and negatives where they are named."""
        names = {
            CORPUS: "corpus.jsonl",
            QUERIES: "queries.jsonl",
            QRELS: f"qrels/{request.split}.tsv",
        }
        if self.negatives is not None:
            names[NEGATIVES] = self.negatives
        return {part: required_file(request, name) for part, name in names.items()}

    def build(
        self, folder: Path, files: Mapping[str, str], request: IdRequest, tally: Tally
    ) -> None:
        """Write the texts, and the rows of the judgements."""
        key = path_key(request.field)
        corpus = write_texts(folder / CORPUS, files[CORPUS], self._document, field=key)
        queries = write_texts(folder / QUERIES, files[QUERIES], _query, field=key)
        with PairFile(folder / PAIRS, queries.num_texts) as pairs:
            collector = PairCollector(queries, corpus, pairs, request=request, tally=tally)
            _judge(collector, files[QRELS], key)
            if NEGATIVES in files:
                collector.open(files[NEGATIVES])
                lines = read_negatives(files[NEGATIVES], field=key, refuse=collector.refuse)
                for line, query, document in lines:
                    collector.add(line, query, document, positive=False)
            collector.open("")
            found = write_rows(folder, pairs, tally)
        unit = "judgements and negatives" if NEGATIVES in files else "judgements"
        beside = ((QUERIES, queries.num_texts), ("documents", corpus.num_texts))
        tally.intake = Intake(unit, collector.num_read, found.used, found.rows, beside)

    def _document(self, line: str) -> tuple[str, str]:
        record = _record(line)
        return _id(record), passage_text(self.template, record, "a document")


def _judge(collector: PairCollector, path: str, key: str) -> None:
    """Take the documents that are judged above 0."""
    collector.open(path)
    for number, line in read_lines(path, field=key):
        fields = line.split("\t")
        if number == 1 and not _is_number(fields[-1]):
            continue  # the names of the columns
        if len(fields) not in (3, 4) or not _is_number(fields[-1]):
            problem = f"has {len(fields)} fields, of which the last is {shown(fields[-1])}"
            fix = "give a query, a document and a grade, with tabs between"
            collector.refuse(BadRecordError(problem, fix), number)
        elif float(fields[-1]) > 0:
            collector.add(number, fields[0], fields[-2], positive=True)
        else:
            collector.leave_out("of a document judged 0", number)


def _query(line: str) -> tuple[str, str]:
    record = _record(line)
    return _id(record), passage_text("{text}", record, "a query")


def _record(line: str) -> Mapping[str, Any]:
    try:
        return fields_of(json.loads(line))
    except json.JSONDecodeError as error:
        raise BadRecordError(f"is not JSON ({error.msg})", "correct it") from error


def _id(record: Mapping[str, Any]) -> str:
    for name in ("_id", "id"):
        if isinstance(value := record.get(name), str | int):
            return str(value)
    raise BadRecordError("has no _id", "give one")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
