"""The keys of `inbatch merge`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from inbatch.config.judging import EvaluateDataConfig
from inbatch.config.schema import EvaluationConfig, Keys, Positive


@dataclass
class MergeConfig(Keys):
    """conf/merge.yaml: models of one architecture that become one model.

    models: a model, a run's folder (its best model), a checkpoint, a sweep's folder, a pattern of paths (*),
        or a list of these. The first one's settings, tokenizer and types of weights are kept.
    method: mean of the weights; slerp, along the arc between two models, tensor by tensor; or greedy, the
        mean of those of the models, from the best on, that do not make the metric of `data.eval` worse.
    weights: a number above 0 for each model, its share; null for equal shares.
    best: models that a sweep's folder stands for, the best by its metric; null where there is no sweep.
    device: cpu, cuda, or auto for a GPU where there is one; where the models are measured.
    chunk_tokens: computed tokens of one forward.
    output_dir: folder for `model` and `merge.json`.
    """

    models: Any = MISSING
    method: Literal["mean", "slerp", "greedy"] = "mean"
    weights: list[float] | None = None
    best: Positive | None = None
    data: EvaluateDataConfig = field(default_factory=EvaluateDataConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    device: str = "auto"
    chunk_tokens: Positive = 8192
    output_dir: str = "outputs/merged"
