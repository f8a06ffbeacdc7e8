"""Models in numbers, for tests of the planner and of the forecast."""

from __future__ import annotations

from inbatch.run.step_size import ModelSize

BERT = ModelSize(
    parameters=110_000_000,
    trainable=110_000_000,
    embedding_parameters=24_000_000,
    layers=12,
    width=768,
    intermediate=3072,
    heads=12,
    dimension=768,
)
