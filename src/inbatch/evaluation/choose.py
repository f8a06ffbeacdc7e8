"""Chooses the evaluator for a file by the contents of its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from inbatch.data.sources.column_names import SCORES
from inbatch.data.sources.columns import MAPPING_KEYS, suggest
from inbatch.errors import ConfigError
from inbatch.evaluation.base import Evaluator
from inbatch.evaluation.binary_classification import BinaryClassificationEvaluator
from inbatch.evaluation.embedding_similarity import EmbeddingSimilarityEvaluator
from inbatch.evaluation.information_retrieval import InformationRetrievalEvaluator
from inbatch.evaluation.reranking import RerankingEvaluator
from inbatch.evaluation.retrieval_files import read_retrieval_data
from inbatch.evaluation.retrieval_sets import is_collection, read_collection
from inbatch.evaluation.retrieval_spec import is_retrieval, retrieval_spec
from inbatch.evaluation.rows import RowSource, load_source
from inbatch.evaluation.triplet import TripletEvaluator

#: What rows may be evaluated as, by the name of the file in conf/evaluation.
TASKS: dict[str, Callable[..., Evaluator]] = {
    "binary": BinaryClassificationEvaluator,
    "reranking": RerankingEvaluator,
    "retrieval": InformationRetrievalEvaluator,
    "similarity": EmbeddingSimilarityEvaluator,
    "triplet": TripletEvaluator,
}


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
    | a folder of such folders; NanoBEIR | `RetrievalSetsEvaluator` |

    Args:
        path, limit: as that evaluator takes them. ``{path, columns, ...}`` gives a set different
            columns, which win over `columns`, and in retrieval ``prompts: {query: PROMPT}``; ``task`` names
            one of TASKS in place of what the columns say; beside a folder, or the three files, there are the
            further keys of `retrieval_spec`, and beside a collection those of `read_collection`.
        columns: those of the training data; columns without a meaning here are left out (a key, scores; for a
            folder, query and positive).
        name: prefix of the metrics.

    Raises:
        ConfigError: rows that cannot be read.
    """
    path, given, task = _split(path)
    shared = columns or {}
    field = "data.eval" if name == "eval" else f"data.eval.{name}"
    if task not in (None, *TASKS):
        raise ConfigError(
            f"{field}.task", "is not known", suggest(str(task), list(TASKS)), value=task
        )
    if task not in (None, "retrieval") and (is_collection(path) or is_retrieval(path)):
        raise ConfigError(
            f"{field}.task",
            "is for rows, and these are corpus, queries and judgements",
            "leave it out",
            value=task,
        )
    if is_collection(path):
        columns = {key: value for key, value in shared.items() if key not in MAPPING_KEYS} | given
        return read_collection(path, columns=columns, limit=limit, name=name, field=field)
    if is_retrieval(path):
        columns = {key: value for key, value in shared.items() if key not in MAPPING_KEYS} | given
        spec = retrieval_spec(path, columns=columns or None, limit=limit, field=field)
        data = read_retrieval_data(spec, field=field)
        return InformationRetrievalEvaluator(data, graded=spec.graded, name=name)
    columns = {key: value for key, value in shared.items() if key not in ("key", *SCORES)} | given
    source = load_source(path, columns=columns, limit=limit, field=field)
    if task is not None:
        return TASKS[task](source, limit=limit, name=name)
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


def _split(path: Any) -> tuple[Any, dict[str, Any], str | None]:
    """The rows to read, the columns given with them, and the task."""
    if not isinstance(path, Mapping):
        return path, {}, None
    keys = dict(path)
    columns = dict(keys.pop("columns", None) or {})
    task = keys.pop("task", None)
    return (keys["path"] if keys.keys() == {"path"} else keys), columns, task
