"""The evaluator that fits a file: what it measures follows from what its columns hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inbatch.evaluation.base import Evaluator
from inbatch.evaluation.binary_classification import BinaryClassificationEvaluator
from inbatch.evaluation.embedding_similarity import EmbeddingSimilarityEvaluator
from inbatch.evaluation.information_retrieval import InformationRetrievalEvaluator
from inbatch.evaluation.rows import Rows, load_rows
from inbatch.evaluation.triplet import TripletEvaluator


def evaluator_for(
    path: Rows | Mapping[str, Any],
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
    | pairs without label, or several negatives | `InformationRetrievalEvaluator` |
    | a folder of corpus, queries and judgements | `InformationRetrievalEvaluator` |

    Args:
        path, columns, limit: as that evaluator takes them.
        name: prefix of the metrics.

    Raises:
        ConfigError: rows that cannot be read.
    """
    if isinstance(path, str) and Path(path).is_dir():
        return InformationRetrievalEvaluator(path, columns=columns, limit=limit, name=name)
    field = "data.eval" if name == "eval" else f"data.eval.{name}"
    source = load_rows(path, columns=columns, limit=limit, field=field)
    if len(source.columns) == 3 and not source.has_labels:
        return TripletEvaluator(source, limit=limit, name=name)
    labels = source.labels()
    if len(source.columns) > 2 or labels is None:
        return InformationRetrievalEvaluator(source, limit=limit, name=name)
    if np.isin(labels, (0.0, 1.0)).all():
        return BinaryClassificationEvaluator(source, limit=limit, name=name)
    return EmbeddingSimilarityEvaluator(source, limit=limit, name=name)
