"""MS MARCO's triplets of ids, with its collection and its queries.

::

    triplets      query, positive, negative; or score of the positive, score of the negative, then these three
    collection    id, text
    queries       id, text

All with tabs between and without a header. https://microsoft.github.io/msmarco/Datasets.html; with scores:
https://zenodo.org/records/4068216
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import fsspec
import numpy as np

from inbatch.data.formats.base import BadRecordError, Head, IdRequest, Tally
from inbatch.data.formats.id_files import find_file, read_lines, write_texts
from inbatch.data.formats.id_lines import PairCollector
from inbatch.data.formats.id_pairs import PairFile
from inbatch.data.formats.id_rows import CORPUS, PAIRS, QUERIES, write_rows
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.dropped import Intake
from inbatch.errors import ConfigError

_ID = re.compile(r"D?\d+")
_SCORE = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
_LARGEST = float(np.finfo(np.float32).max)
_HEADER = re.compile(r"(qid|query[-_ ]?id|query|score)\b.*", re.IGNORECASE)


@final
@dataclass(frozen=True)
class MsMarco:
    """Triplets of ids: one row for each query, with its positives and its negatives.

    Texts are looked up in the collection, not copied. Scores of a teacher, where there are any, stay with
    their documents.

    collection: the file of passages; null for collection.tsv beside the triplets.
    queries: the file of queries; null for queries.train.tsv or queries.tsv beside the triplets.
    """

    collection: str | None = None
    queries: str | None = None

    def recognise(self, head: Head) -> str:
        """By lines of three ids, or of two scores and three ids."""
        names = head.names
        ids = len(names) in (3, 5) and all(_ID.fullmatch(name) for name in names[-3:])
        if ids and all(_SCORE.fullmatch(name) for name in names[:-3]):
            kind = "two scores and three ids" if len(names) == 5 else "three ids"
            return f"its lines are {kind}: query, positive, negative"
        return ""

    def files(self, request: IdRequest) -> dict[str, str]:
        """The triplets, the collection and the queries."""
        folder = request.paths[0].rpartition("/")[0] or "."
        known = {
            "collection": (self.collection, ("collection.tsv",)),
            "queries": (self.queries, ("queries.train.tsv", "queries.tsv")),
        }
        found = {str(number): path for number, path in enumerate(request.paths)}
        for key, (given, names) in known.items():
            beside = [place for name in names if (place := find_file(folder, name))]
            path = given or (beside[0] if beside else None)
            if path is None:
                raise ConfigError(
                    f"{request.field}.format.{key}",
                    f"is not set, and {folder} has no {' or '.join(names)}",
                    "name the file of ids and texts",
                )
            fs, place = fsspec.core.url_to_fs(path)
            if not fs.isfile(place):
                key = f"{request.field}.format.{key}"
                raise ConfigError(key, "is not there", "correct the path", value=path)
            found[key] = path
        return found

    def build(
        self, folder: Path, files: Mapping[str, str], request: IdRequest, tally: Tally
    ) -> None:
        """Write the texts, and the rows of the triplets."""
        field = f"{request.field}.format"
        corpus = write_texts(
            folder / CORPUS, files["collection"], _text, field=f"{field}.collection"
        )
        queries = write_texts(folder / QUERIES, files["queries"], _text, field=f"{field}.queries")
        with PairFile(folder / PAIRS, queries.num_texts) as pairs:
            collector = PairCollector(
                queries, corpus, pairs, request=request, tally=tally, once=True
            )
            num_lines = sum(
                _take(path, collector, key=path_key(request.field)) for path in request.paths
            )
            collector.open("")
            found = write_rows(folder, pairs, tally, once=True)
        tally.intake = Intake(
            "pairs of ids",
            collector.num_read - found.repeats,
            found.used,
            found.rows,
            (
                ("triplets", num_lines),
                (QUERIES, queries.num_texts),
                ("documents", corpus.num_texts),
            ),
        )


def _take(path: str, collector: PairCollector, *, key: str) -> int:
    """Give the pairs of a file to a collector; returns its triplets."""
    collector.open(path)
    count = 0
    for number, line in read_lines(path, field=key):
        fields = line.split("\t")
        if number == 1 and _HEADER.fullmatch(fields[0]):
            continue
        count += 1
        if len(fields) not in (3, 5):
            fix = "give query, positive and negative, or two scores before them, with tabs between"
            collector.refuse(BadRecordError(f"has {len(fields)} fields", fix), number)
            continue
        *scores, query, positive, negative = fields
        try:
            of_positive, of_negative = map(_score, scores or ("nan", "nan"))
        except ValueError:
            error = BadRecordError(f"has the scores {', '.join(scores)}", "give finite numbers")
            collector.refuse(error, number)
            continue
        collector.add(number, query, positive, positive=True, score=of_positive)
        collector.add(number, query, negative, positive=False, score=of_negative)
    return count


def _score(text: str) -> float:
    """A score; NaN for none.

    Raises:
        ValueError: float32 does not hold it as a finite number.
    """
    score = float(text)
    if abs(score) > _LARGEST:
        raise ValueError(text)
    return score


def _text(line: str) -> tuple[str, str]:
    key, tab, text = line.partition("\t")
    if not tab:
        raise BadRecordError("has no tab", "give an id and a text with a tab between")
    return key, text.strip()
