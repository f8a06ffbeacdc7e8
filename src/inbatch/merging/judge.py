"""What models are measured by, before and after they are merged: the evaluators of `inbatch evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.evaluation import Evaluator
from inbatch.evaluation.base import follow_model
from inbatch.evaluation.encode_texts import EncodeTexts, on_device

Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What models are measured by.

    evaluators: by name; {} measures nothing.
    metric: that decides; None for that of the first evaluator.
    largest: whether more is better.
    device, chunk_tokens: of the forwards.
    """

    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)
    metric: str | None = None
    largest: bool = True
    device: str = "cpu"
    chunk_tokens: int = 8192

    @property
    def primary(self) -> str | None:
        """The metric that decides; it is known once a model has been measured."""
        first = next(iter(self.evaluators.values()), None)
        return self.metric or (None if first is None else first.primary_metric)

    def measure(self, directory: Path) -> Metrics:
        """All metrics of a model.

        Raises:
            ConfigError: the metric that decides is none of them.
        """
        encoder = on_device(build_encoder(str(directory)), self.device).eval()
        follow_model(self.evaluators.values(), encoder.similarity)
        encode = EncodeTexts(encoder, self.chunk_tokens)
        metrics = {k: v for each in self.evaluators.values() for k, v in each(encode).items()}
        if self.evaluators and self.primary not in metrics:
            raise ConfigError(
                "evaluation.best_metric",
                "is not a metric of the evaluators",
                f"set one of {', '.join(metrics)}",
                value=self.primary,
            )
        return metrics
