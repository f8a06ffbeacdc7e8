"""Queries, corpus and judgements.

Shape letters: Q queries, N documents, R relevant pairs, K hits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inbatch.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RetrievalData:
    """Queries, corpus and judgements, with ids turned into numbers.

    A document's rank is its place in the ascending order of ids, which breaks ties between scores.
    Equal texts of the corpus are neighbours, so that blocks of it embed them once.
    """

    queries: list[str]  # Q, each with a relevant document
    query_ids: list[str]
    corpus: list[str]  # N
    ranks: np.ndarray  # [N] int64, rank of each document
    ids: list[str]  # N document ids in ascending order: the id of each rank
    relevant: np.ndarray  # [R] int64, query * N + rank, ascending
    grades: np.ndarray  # [R] float64, above 0

    @property
    def num_relevant(self) -> np.ndarray:
        """Relevant documents of each query: int64 [Q], at least 1."""
        return np.bincount(self.relevant // len(self.corpus), minlength=len(self.queries))

    def gains(self, ranks_QK: np.ndarray) -> np.ndarray:
        """Grade of each hit, float64 [Q, K]; 0 if it is not relevant or missing (rank -1)."""
        wanted = np.arange(len(self.queries))[:, None] * len(self.corpus) + ranks_QK
        places = np.searchsorted(self.relevant, wanted).clip(max=len(self.relevant) - 1)
        found = (self.relevant[places] == wanted) & (ranks_QK >= 0)
        return np.where(found, self.grades[places], 0.0)

    def relevant_texts(self, limit: int) -> tuple[list[str], list[str]]:
        """Query and document of the first relevant pairs."""
        place = np.argsort(self.ranks)  # of each rank in the corpus
        pairs = [divmod(pair, len(self.corpus)) for pair in self.relevant[:limit].tolist()]
        documents = [self.corpus[place[rank]] for _, rank in pairs]
        return [self.queries[query] for query, _ in pairs], documents

    def ideal_gains(self, k: int) -> np.ndarray:
        """The k largest grades of each query, descending, then zeros: float64 [Q, k]."""
        query = self.relevant // len(self.corpus)
        order = np.lexsort((-self.grades, query))
        starts = np.cumsum(self.num_relevant) - self.num_relevant
        place = np.arange(len(order)) - starts[query]
        ideal = np.zeros((len(self.queries), k))
        kept = place < k
        ideal[query[kept], place[kept]] = self.grades[order][kept]
        return ideal


def make_retrieval_data(
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    judgements: Mapping[tuple[str, str], float],
    *,
    limit: int | None = None,
    field: str = "retrieval",
) -> RetrievalData:
    """Turn ids into numbers.

    Args:
        queries: query id -> text. Queries without a relevant document are left out, as their
            metrics are not defined.
        corpus: document id -> text.
        judgements: (query id, document id) -> grade; relevant where it is above 0.
        limit: the first queries that have a relevant document; None for all. The corpus stays
            whole.
        field: configuration key of the evaluator, for messages.

    Raises:
        ConfigError: a judgement of an unknown query or document, or no relevant document at all.
    """
    for query, document in judgements:
        for kind, key, known in (("query", query, queries), ("document", document, corpus)):
            if key not in known:
                raise ConfigError(
                    f"{field}",
                    f"has judgements of the {kind} {key!r}, which is not among the "
                    f"{len(known)} ids that were read (such as {next(iter(known), None)!r})",
                    f"make the ids match, or name the right columns in {field}.columns",
                )
    positive = {pair: grade for pair, grade in judgements.items() if grade > 0}
    judged = {query for query, _ in positive}
    query_ids = [query for query in queries if query in judged][:limit]
    if not query_ids:
        raise ConfigError(
            f"{field}.columns.grade", "gives no judgement a grade above 0", "name another column"
        )
    ids = sorted(corpus)
    rank = {document: i for i, document in enumerate(ids)}
    first: dict[str, int] = {}
    for text in corpus.values():
        first.setdefault(text, len(first))
    ordered = sorted(corpus.items(), key=lambda item: first[item[1]])
    number = {query: i for i, query in enumerate(query_ids)}
    rows = [
        (number[query] * len(ids) + rank[document], grade)
        for (query, document), grade in positive.items()
        if query in number
    ]
    rows.sort()
    return RetrievalData(
        queries=[queries[query] for query in query_ids],
        query_ids=query_ids,
        corpus=[text for _, text in ordered],
        ranks=np.array([rank[document] for document, _ in ordered], dtype=np.int64),
        ids=ids,
        relevant=np.array([row for row, _ in rows], dtype=np.int64),
        grades=np.array([grade for _, grade in rows], dtype=np.float64),
    )


def retrieval_data_of_pairs(
    columns: Sequence[Sequence[str]],
    labels: np.ndarray | None,
    *,
    limit: int | None = None,
    field: str = "retrieval",
) -> RetrievalData:
    """Search each distinct query's positives among all distinct texts of the other columns.

    Args:
        columns: texts by column: query, positive, negatives.
        labels: grade of each pair of query and positive; None for 1. Negatives have no grade.
        limit, field: see `make_retrieval_data`.

    Raises:
        ConfigError: no grade is above 0.
    """
    queries = {text: str(i) for i, text in enumerate(dict.fromkeys(columns[0]))}
    documents = {text: i for i, text in enumerate(dict.fromkeys(t for c in columns[1:] for t in c))}
    width = len(str(len(documents)))  # equal widths, so that ids as strings keep the order of rows
    keys = {text: f"{i:0{width}d}" for text, i in documents.items()}
    judgements: dict[tuple[str, str], float] = {}
    grades = np.ones(len(columns[0])) if labels is None else labels
    for query, positive, grade in zip(columns[0], columns[1], grades.tolist()):
        pair = queries[query], keys[positive]
        judgements[pair] = max(grade, judgements.get(pair, grade))
    return make_retrieval_data(
        {key: text for text, key in queries.items()},
        {key: text for text, key in keys.items()},
        judgements,
        limit=limit,
        field=field,
    )
