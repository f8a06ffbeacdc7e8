"""Queries, corpus and judgements.

Shape letters: Q queries, N documents, R relevant pairs, K hits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inbatch.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RetrievalData:
    """Queries, corpus and judgements, with ids turned into numbers.

    A document's rank is its place in the ascending order of ids, which breaks ties between scores.
    Equal texts of the corpus are neighbours, so that blocks of it embed them once. A document that is
    judged but is not in the corpus has a rank after all others: relevant, and never found.
    """

    queries: list[str]  # Q, each with a relevant document
    query_ids: list[str]
    corpus: list[str]  # N
    ranks: np.ndarray  # [N] int64, rank of each document
    ids: list[
        str
    ]  # document ids, the id of each rank: N ascending ones of the corpus, then absent ones
    relevant: np.ndarray  # [R] int64, query * len(ids) + rank, ascending
    grades: np.ndarray  # [R] float64, above 0
    left_out: np.ndarray | None = (
        None  # [Q] int64, rank of the document that is no hit; -1 for none
    )
    query_prompt: str | None = None  # in place of the encoder's
    notes: tuple[str, ...] = ()  # what a person should know of the ids, as sentences

    @property
    def num_relevant(self) -> np.ndarray:
        """Relevant documents of each query: int64 [Q], at least 1."""
        return np.bincount(self.relevant // len(self.ids), minlength=len(self.queries))

    def gains(self, ranks_QK: np.ndarray) -> np.ndarray:
        """Grade of each hit, float64 [Q, K]; 0 if it is not relevant or missing (rank -1)."""
        wanted = np.arange(len(self.queries))[:, None] * len(self.ids) + ranks_QK
        places = np.searchsorted(self.relevant, wanted).clip(max=len(self.relevant) - 1)
        found = (self.relevant[places] == wanted) & (ranks_QK >= 0)
        return np.where(found, self.grades[places], 0.0)

    def without_left_out(self, ranks_QK: np.ndarray) -> np.ndarray:
        """K - 1 hits of each query, int64 [Q, K - 1]: all but the document left out, or but the last."""
        if self.left_out is None:
            return ranks_QK[:, :-1]
        is_left_out = ranks_QK == self.left_out[:, None]
        is_left_out &= ranks_QK >= 0
        order = np.argsort(is_left_out, axis=1, kind="stable")
        return np.take_along_axis(ranks_QK, order, axis=1)[:, :-1]

    def relevant_texts(self, limit: int) -> tuple[list[str], list[str]]:
        """Query and document of the first relevant pairs whose document is in the corpus."""
        place = np.argsort(self.ranks)  # of each rank in the corpus
        query, rank = np.divmod(self.relevant, len(self.ids))
        pairs = [(q, r) for q, r in zip(query.tolist(), rank.tolist()) if r < len(place)][:limit]
        return [self.queries[q] for q, _ in pairs], [self.corpus[place[r]] for _, r in pairs]

    def ideal_gains(self, k: int) -> np.ndarray:
        """The k largest grades of each query, descending, then zeros: float64 [Q, k]."""
        query = self.relevant // len(self.ids)
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
    exclude_same_id: bool = False,
    field: str = "retrieval",
) -> RetrievalData:
    """Turn ids into numbers.

    Judgements of ids that are absent count as trec_eval counts them: a query without text is left out,
    a relevant document that the corpus does not have lowers recall and nDCG.

    Args:
        queries: query id -> text. Queries without a relevant document are left out, as their
            metrics are not defined.
        corpus: document id -> text.
        judgements: (query id, document id) -> grade; relevant where it is above 0.
        limit: the first queries that have a relevant document; None for all. The corpus stays
            whole.
        exclude_same_id: no query finds the document that has its own id.
        field: configuration key of the evaluator, for messages.

    Raises:
        ConfigError: no judged query or no relevant document is known, or none is relevant at all.
    """
    positive = {pair: grade for pair, grade in judgements.items() if grade > 0}
    if not positive:
        raise ConfigError(
            f"{field}.columns.grade", "gives no judgement a grade above 0", "name another column"
        )
    _check_known((query for query, _ in positive), queries, kind="query", field=field)
    _check_known((document for _, document in positive), corpus, kind="document", field=field)
    judged = {query for query, _ in positive}
    query_ids = [query for query in queries if query in judged][:limit]
    number = {query: i for i, query in enumerate(query_ids)}
    positive = {pair: grade for pair, grade in positive.items() if pair[0] in number}
    absent = sorted({document for _, document in positive if document not in corpus})
    ids = [*sorted(corpus), *absent]
    rank = {document: i for i, document in enumerate(ids)}
    first: dict[str, int] = {}
    for text in corpus.values():
        first.setdefault(text, len(first))
    ordered = sorted(corpus.items(), key=lambda item: first[item[1]])
    rows = [
        (number[query] * len(ids) + rank[document], grade)
        for (query, document), grade in positive.items()
    ]
    rows.sort()
    own = [rank[query] if query in corpus else -1 for query in query_ids]
    return RetrievalData(
        queries=[queries[query] for query in query_ids],
        query_ids=query_ids,
        corpus=[text for _, text in ordered],
        ranks=np.array([rank[document] for document, _ in ordered], dtype=np.int64),
        ids=ids,
        relevant=np.array([row for row, _ in rows], dtype=np.int64),
        grades=np.array([grade for _, grade in rows], dtype=np.float64),
        left_out=np.array(own, dtype=np.int64) if exclude_same_id else None,
        notes=(
            *_absent_notes(queries, corpus, judgements),
            *_same_id_notes({q: queries[q] for q in query_ids}, corpus, excluded=exclude_same_id),
        ),
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
    grades = np.ones(len(columns[0])) if labels is None else labels
    return retrieval_data_of_texts(
        columns[0],
        (text for column in columns[1:] for text in column),
        zip(columns[0], columns[1], grades.tolist()),
        limit=limit,
        field=field,
    )


def retrieval_data_of_texts(
    queries: Iterable[str],
    documents: Iterable[str],
    pairs: Iterable[tuple[str, str, float]],
    *,
    limit: int | None = None,
    field: str = "retrieval",
) -> RetrievalData:
    """Search each distinct query among all distinct documents; a text is its own id.

    Args:
        queries: texts.
        documents: texts; the first of two with equal scores is the better hit.
        pairs: query, document, and grade, the largest of those that a pair has.
        limit, field: see `make_retrieval_data`.

    Raises:
        ConfigError: no grade is above 0.
    """
    # Ids that no document has: a query is never the same thing as a document here.
    query_ids = {text: f"q{i}" for i, text in enumerate(dict.fromkeys(queries))}
    distinct = dict.fromkeys(documents)
    width = len(str(len(distinct)))  # equal widths, so that ids as strings keep the order
    ids = {text: f"{i:0{width}d}" for i, text in enumerate(distinct)}
    judgements: dict[tuple[str, str], float] = {}
    for query, document, grade in pairs:
        pair = query_ids[query], ids[document]
        judgements[pair] = max(grade, judgements.get(pair, grade))
    return make_retrieval_data(
        {key: text for text, key in query_ids.items()},
        {key: text for text, key in ids.items()},
        judgements,
        limit=limit,
        field=field,
    )


def _check_known(ids: Iterable[str], known: Mapping[str, str], *, kind: str, field: str) -> None:
    """Refuse judgements none of whose ids is known, which come of a wrong column or file."""
    unknown = None
    for unknown in ids:
        if unknown in known:
            return
    raise ConfigError(
        field,
        f"has judgements of the {kind} {unknown!r}, and none of a {kind} that is among the "
        f"{len(known)} ids that were read (such as {next(iter(known), None)!r})",
        f"make the ids match, or name the right columns in {field}.columns",
    )


def _absent_notes(
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    judgements: Mapping[tuple[str, str], float],
) -> list[str]:
    """What absent ids, and queries without a relevant document, do to the metrics."""
    judged = dict.fromkeys(query for query, _ in judgements)
    unknown = [query for query in judged if query not in queries]
    relevant = {query for (query, _), grade in judgements.items() if grade > 0}
    idle = [query for query in judged if query in queries and query not in relevant]
    absent = [
        document
        for (query, document), grade in judgements.items()
        if grade > 0 and query in queries and document not in corpus
    ]
    notes = []
    if unknown:
        which = _counted(unknown, "judged query", "judged queries")
        notes.append(f"{which} without text, left out")
    if absent:
        which = _counted(absent, "judgement", "judgements")
        notes.append(f"{which} of a document that is not in the corpus: relevant and not found")
    if idle:
        which = _counted(idle, "judged query", "judged queries")
        notes.append(f"{which} without a relevant document, left out (trec_eval counts 0 for it)")
    return notes


def _same_id_notes(
    queries: Mapping[str, str], corpus: Mapping[str, str], *, excluded: bool
) -> list[str]:
    """How many queries have the id of a document, where that matters."""
    same = [query for query in queries if query in corpus]
    if excluded:
        which = _counted(same, "query", "queries") if same else "no query"
        return [f"{which} with the id of a document, which is left out of its hits"]
    equal = [query for query in same if queries[query].strip() == corpus[query].strip()]
    if not equal:
        return []
    which = _counted(equal, "query", "queries")
    return [f"{which} in the corpus under the same id: exclude_same_id=true leaves it out, as BEIR"]


def _counted(ids: Sequence[str], one: str, several: str) -> str:
    return f"{len(ids):,} {one if len(ids) == 1 else several} ({ids[0]})"
