"""Measures whether search finds the relevant documents.

Shape letters: Q queries, N documents, K hits, D dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from inbatch.errors import ConfigError
from inbatch.evaluation.base import (
    Encode,
    EvaluationRows,
    Examples,
    check_truncate_dim,
    embed_distinct,
    field_of,
    parse_similarity,
    prefix_key,
    with_prefix,
)
from inbatch.evaluation.bootstrap import Sample, mean_of
from inbatch.evaluation.metrics import Cutoffs, query_metrics
from inbatch.evaluation.retrieval_data import RetrievalData
from inbatch.evaluation.retrieval_files import read_retrieval_data
from inbatch.evaluation.retrieval_rows import retrieval_data_of_rows
from inbatch.evaluation.retrieval_spec import is_retrieval, retrieval_spec
from inbatch.evaluation.rows import RowSource, check_limit
from inbatch.evaluation.search import hit_ranks, no_hits, search_block
from inbatch.evaluation.search_device import check_device, search_device
from inbatch.evaluation.shared_queries import share_queries

EXAMPLE_QUERIES, EXAMPLE_HITS = 10, 3
SHOWN_ROWS = 1000  # of the relevant pairs, in a card


@final
class InformationRetrievalEvaluator:
    """Ranks the corpus for each query by exact search and looks where the relevant documents are.

    Keys ``{similarity}_{accuracy, precision, recall, ndcg, mrr, map}@{k}``. The primary metric is
    the nDCG of the first similarity at its largest k. Equal scores are ranked by document id.
    Queries are embedded in the role "query", the corpus in the role "document", block by block: no
    more than `corpus_chunk_size` document embeddings are held, and a device that searches holds as many
    beside those of the queries.

    Args:
        path: one of
            - a folder of corpus, queries and judgements (see `retrieval_folder`), or ``{corpus: file,
              queries: file, qrels: file}``: ids and texts, and which pairs are relevant; csv, tsv, jsonl,
              parquet, arrow, judgements also in trec_eval's four columns. Either may be a mapping with
              split, exclude_same_id, graded, limit and columns in it;
            - pairs (see `rows.read_texts`), or rows with lists of positives and negatives: every distinct
              query looks for its positives among all distinct positives and negatives; labels, if there
              are any, are grades;
            - a `RetrievalData`.
        columns: for three files ``{corpus_id, corpus_text, query_id, query_text, qrels_query_id,
            qrels_corpus_id, grade}`` -> column names, for pairs ``{query, positive, negatives,
            label}``; common names are recognised. Texts may be templates of columns (``{title}: {body}``);
            a corpus with title and text is read by BEIR's rule, ``{title} {text}``. Without a grade every
            judged pair is relevant.
        limit: the first queries only; the corpus stays whole.
        split: name of the judgements of a folder that has several, or a list of them to take together.
        exclude_same_id: no query finds the document that has its own id (ArguAna, Quora).
        name: prefix of the keys.
        similarity: cosine, dot, manhattan (negated), euclidean (negated); None for the model's own.
        graded: gains of the nDCG are the grades, as in trec_eval; False: 1 for every grade above 0, as in
            sentence-transformers.
        accuracy_at_k, precision_recall_at_k, ndcg_at_k, mrr_at_k, map_at_k: where to take each
            metric.
        corpus_chunk_size: documents that are embedded and searched at a time.
        device: where to search: "cpu", "cuda" (of several GPUs the current one), or "auto" for where
            `encode` computes, or else the GPU if there is one.
        truncate_dim: keep the first dimensions of embeddings only.

    Raises:
        ConfigError: files, columns, ids or grades that cannot be used; an unknown similarity or
            device.
    """

    description: ClassVar[str] = "Information Retrieval"

    def __init__(
        self,
        path: RowSource | Mapping[str, Any] | RetrievalData,
        *,
        columns: Mapping[str, Any] | None = None,
        limit: int | None = None,
        split: str | Sequence[str] | None = None,
        exclude_same_id: bool = False,
        name: str = "",
        similarity: str | Sequence[str] | None = None,
        graded: bool = False,
        accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
        precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
        ndcg_at_k: Sequence[int] = (10,),
        mrr_at_k: Sequence[int] = (10,),
        map_at_k: Sequence[int] = (100,),
        corpus_chunk_size: int = 50_000,
        device: str = "auto",
        truncate_dim: int | None = None,
    ) -> None:
        field = field_of(name, "retrieval")
        self.name = name
        self.device = check_device(device, field=field)
        self.follows_model = similarity is None
        self.similarity = parse_similarity(similarity, field=field)
        self.truncate_dim = check_truncate_dim(truncate_dim, field=field)
        self.cutoffs = Cutoffs(
            accuracy=_cutoffs(accuracy_at_k, "accuracy_at_k", field=field),
            precision_recall=_cutoffs(precision_recall_at_k, "precision_recall_at_k", field=field),
            ndcg=_cutoffs(ndcg_at_k, "ndcg_at_k", field=field),
            mrr=_cutoffs(mrr_at_k, "mrr_at_k", field=field),
            map=_cutoffs(map_at_k, "map_at_k", field=field),
        )
        self.corpus_chunk_size = corpus_chunk_size
        self._first_hits: Tensor | None = None
        self._gained: np.ndarray | None = None  # [Q], of the last call
        if corpus_chunk_size < 1:
            raise ConfigError(
                f"{field}.corpus_chunk_size",
                "is below 1",
                "set at least 1",
                value=corpus_chunk_size,
            )
        self.data, self.graded = _read(
            path,
            field=field,
            columns=columns or None,
            limit=limit,
            split=split,
            exclude_same_id=exclude_same_id,
            graded=graded,
        )

    @property
    def primary_metric(self) -> str:
        """Full key of the nDCG of the first similarity."""
        return prefix_key(self.name, f"{self.similarity[0]}_ndcg@{max(self.cutoffs.ndcg)}")

    def metric_names(self) -> tuple[str, ...]:
        """All full keys that a call returns."""
        keys = self.cutoffs.keys
        return tuple(prefix_key(self.name, f"{s}_{key}") for s in self.similarity for key in keys)

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Embed, search and judge."""
        hits = self.search(encode)
        found = hits.get(self.similarity[0])
        self._first_hits = None if found is None else found[:EXAMPLE_QUERIES, :EXAMPLE_HITS]
        metrics: dict[str, float] = {}
        for similarity in self.similarity:
            judged = self._judge(hits.get(similarity))
            for key, values_Q in judged.items():
                metrics[f"{similarity}_{key}"] = float(np.mean(values_Q))
            if similarity == self.similarity[0]:
                self._gained = judged[f"ndcg@{max(self.cutoffs.ndcg)}"] if hits else None
        return with_prefix(self.name, metrics)

    def sample(self) -> Sample | None:
        """The nDCG of the first similarity as a function of queries."""
        return None if self._gained is None else mean_of(self._gained)

    def evaluated_rows(self) -> EvaluationRows:
        """Queries, each with a relevant document."""
        data = self.data
        queries, documents = data.relevant_texts(SHOWN_ROWS)
        contents = f"queries, {len(data.corpus):,} documents, {len(data.relevant):,} relevant pairs"
        texts = (
            {"query": queries, "relevant document": documents}
            if queries
            else {"query": data.queries}
        )
        return EvaluationRows(len(data.queries), contents, texts, data.notes)

    def examples(self) -> Examples | None:
        """The nearest documents of the first queries, and whether they are relevant."""
        if self._first_hits is None:
            return None
        ranks_QK = self._first_hits.numpy()
        gains = self.data.gains(
            np.pad(
                ranks_QK, ((0, len(self.data.queries) - len(ranks_QK)), (0, 0)), constant_values=-1
            )
        )
        places = np.flatnonzero(np.isin(self.data.ranks, ranks_QK))
        texts = {int(self.data.ranks[place]): self.data.corpus[place] for place in places}
        rows: list[tuple[str | float | bool, ...]] = [
            (self.data.queries[query], hit + 1, texts[int(rank)], bool(gains[query, hit] > 0))
            for query, ranks in enumerate(ranks_QK)
            for hit, rank in enumerate(ranks)
            if rank >= 0
        ]
        return Examples(("query", "place", "document", "relevant"), rows)

    def search(self, encode: Encode) -> dict[str, Tensor]:
        """Ranks of the best documents by similarity: int64 [Q, K] on the CPU.

        ``data.ids[rank]`` is a document's id; -1 stands where the corpus has no more. Empty if an
        embedding is not finite.
        """
        options: dict[str, Any] = {"truncate_dim": self.truncate_dim}
        device = search_device(self.device, encode)
        own: dict[str, Any] = {"role": "query", "prompt": self.data.query_prompt}
        (queries_QD,) = embed_distinct(encode, (self.data.queries,), **own, **options)
        queries_QD = queries_QD.to(device)
        if not bool(queries_QD.isfinite().all()):
            return {}
        # One more hit, in place of the document that is no hit.
        k = self.cutoffs.largest + (self.data.left_out is not None)
        shared = share_queries(encode, len(queries_QD))
        queries_QD = queries_QD[shared.own]
        keys = {name: no_hits(len(queries_QD), k, device=device) for name in self.similarity}
        for texts, ranks_N in self._blocks():
            (documents_ND,) = embed_distinct(encode, (texts,), role="document", **options)
            documents_ND, ranks_N = documents_ND.to(device), ranks_N.to(device)
            if not bool(documents_ND.isfinite().all()):
                return {}
            for name in self.similarity:
                keys[name] = search_block(
                    keys[name], queries_QD, documents_ND, ranks_N, similarity=name
                )
        hits = {name: hit_ranks(shared.joined(found)).cpu() for name, found in keys.items()}
        if self.data.left_out is None:
            return hits
        return {
            name: torch.from_numpy(self.data.without_left_out(found.numpy()))
            for name, found in hits.items()
        }

    def _blocks(self) -> Iterator[tuple[list[str], Tensor]]:
        for start in range(0, len(self.data.corpus), self.corpus_chunk_size):
            block = slice(start, start + self.corpus_chunk_size)
            yield self.data.corpus[block], torch.from_numpy(self.data.ranks[block])

    def _judge(self, ranks_QK: Tensor | None) -> dict[str, np.ndarray]:
        """Metrics of each query."""
        if ranks_QK is None:
            return dict.fromkeys(self.cutoffs.keys, np.array([math.nan]))
        gains = self.data.gains(ranks_QK.numpy())
        ideal = self.data.ideal_gains(max(self.cutoffs.ndcg))
        if not self.graded:
            gains, ideal = (gains > 0).astype(float), (ideal > 0).astype(float)
        return query_metrics(
            gains, ideal_QK=ideal, num_relevant_Q=self.data.num_relevant, cutoffs=self.cutoffs
        )


def _read(path: Any, *, field: str, **given: Any) -> tuple[RetrievalData, bool]:
    """The data of `path`, and whether its nDCG is graded; `given` are the arguments of that name.

    Raises:
        ConfigError: see `InformationRetrievalEvaluator`.
    """
    if isinstance(path, RetrievalData):
        return path, given["graded"]
    if is_retrieval(path):
        spec = retrieval_spec(path, field=field, **given)
        return read_retrieval_data(spec, field=field), spec.graded
    for key in ("split", "exclude_same_id"):
        if given[key]:
            raise ConfigError(
                f"{field}.{key}",
                "belongs to a folder of corpus, queries and judgements, and these are rows",
                "leave it out",
                value=given[key],
            )
    limit = check_limit(given["limit"], field=field)
    data = retrieval_data_of_rows(path, columns=given["columns"], limit=limit, field=field)
    return data, given["graded"]


def _cutoffs(values: Sequence[int], key: str, *, field: str) -> tuple[int, ...]:
    if not values or min(values) < 1:
        raise ConfigError(
            f"{field}.{key}",
            "are not numbers of hits",
            "set a list such as [1, 10]",
            value=list(values),
        )
    return tuple(values)
