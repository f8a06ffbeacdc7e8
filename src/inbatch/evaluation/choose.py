"""Chooses the evaluator for a file by the contents of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from inbatch.data.sources.columns import MAPPING_KEYS, SCORES
from inbatch.evaluation.base import Evaluator
from inbatch.evaluation.binary_classification import BinaryClassificationEvaluator
from inbatch.evaluation.embedding_similarity import EmbeddingSimilarityEvaluator
from inbatch.evaluation.information_retrieval import InformationRetrievalEvaluator
from inbatch.evaluation.retrieval_files import read_retrieval_data
from inbatch.evaluation.retrieval_spec import is_retrieval, retrieval_spec
from inbatch.evaluation.rows import RowSource, load_source
from inbatch.evaluation.triplet import TripletEvaluator


def evaluator_for(
    path: RowSource | Mapping[str, Any],
    *,
    columns: Mapping[str, object] | None = None,
    limit: int | None = None,
    name: str = "eval",
) -> Evaluator:
    """An evaluator of what `path` holds.

    | columns | evaluator |
    |---|---|
    | query, positive, one negative | `TripletEvaluator` |
    | pairs whose labels are 0 and 1 | `BinaryClassificationEvaluator` |
    | pairs with other labels | `EmbeddingSimilarityEvaluator` |
    | pairs without label, several negatives, or lists | `InformationRetrievalEvaluator` |
    | a folder of corpus, queries and judgements | `InformationRetrievalEvaluator` |

    Args:
        path, limit: as that evaluator takes them. ``{path, columns, ...}`` gives a set different
            columns, which win over `columns`, and in retrieval ``prompts: {query: PROMPT}``; beside a folder,
            or the three files, it takes the further keys of `retrieval_spec` too.
        columns: those of the training data; columns without a meaning here are left out (a key, scores; for a
            folder, query and positive).
        name: prefix of the metrics.

    Raises:
        ConfigError: rows that cannot be read.
    """
    path, given = _split(path)
    shared = columns or {}
    field = "data.eval" if name == "eval" else f"data.eval.{name}"
    if is_retrieval(path):
        columns = {key: value for key, value in shared.items() if key not in MAPPING_KEYS} | given
        spec = retrieval_spec(path, columns=columns or None, limit=limit, field=field)
        data = read_retrieval_data(spec, field=field)
        return InformationRetrievalEvaluator(data, graded=spec.graded, name=name)
    columns = {key: value for key, value in shared.items() if key not in ("key", *SCORES)} | given
    source = load_source(path, columns=columns, limit=limit, field=field)
    if source.is_ragged:
        return InformationRetrievalEvaluator(source, limit=limit, name=name)
    if len(source.columns) == 3 and not source.has_labels:
        return TripletEvaluator(source, limit=limit, name=name)
    labels = source.labels()
    if len(source.columns) > 2 or labels is None:
        return InformationRetrievalEvaluator(source, limit=limit, name=name)
    if np.isin(labels, (0.0, 1.0)).all():
        return BinaryClassificationEvaluator(source, limit=limit, name=name)
    return EmbeddingSimilarityEvaluator(source, limit=limit, name=name)


def _split(path: Any) -> tuple[Any, dict[str, Any]]:
    """The rows to read, and the columns given with them."""
    if not isinstance(path, Mapping):
        return path, {}
    keys = dict(path)
    columns = dict(keys.pop("columns", None) or {})
    return (keys["path"] if keys.keys() == {"path"} else keys), columns
