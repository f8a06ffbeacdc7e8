"""A card of a run with two sources and three evaluators, and a training log."""

from __future__ import annotations

import math
from typing import Any

from inbatch.export.card_data import (
    CardData,
    EvaluationCard,
    SourceCard,
    UsageExample,
    choose_widget,
    column_stats,
)
from inbatch.losses import GIST, CoSENT

TRIPLETS = (
    ("girls white shoes", "adidas Coast Star, white, 6 M US", "Converse Chuck 70, size 5"),
    ("7edge phone case", "Galaxy S7 Edge case, peacock", "Galaxy S7 case with screen protector"),
    ("tooled belt strap", "Brass buckle for 1 3/4 inch belts", "Brown floral belt, 40"),
    ("hiking socks", "Merino socks, cushioned, 2 pairs", "Running shorts, 5 inch"),
    ("usb c cable 2m", "Braided USB-C cable, 2 m, 60 W", "HDMI cable, 2 m"),
    ("desk lamp led", "LED desk lamp with dimmer", "Lamp shade, beige"),
)


def triplet_evaluation(name: str = "esci-dev", *, after: float = 0.81) -> EvaluationCard:
    return EvaluationCard(
        evaluator="TripletEvaluator",
        description="Triplet",
        name=name,
        metrics={f"{name}_cosine_accuracy": after, f"{name}_dot_accuracy": 0.7},
        before={f"{name}_cosine_accuracy": 0.6414, f"{name}_dot_accuracy": 0.3664},
        primary_metric=f"{name}_cosine_accuracy",
    )


def sts_evaluation() -> EvaluationCard:
    return EvaluationCard(
        evaluator="EmbeddingSimilarityEvaluator",
        description="Semantic Similarity",
        name="sts_dev",
        metrics={"sts_dev_pearson_cosine": 0.8797, "sts_dev_spearman_cosine": 0.8458},
        primary_metric="sts_dev_spearman_cosine",
    )


def training_log(num_steps: int = 40, *, every: int = 10) -> list[dict[str, Any]]:
    """Loss at every step; an evaluation at the start and every N steps, best in the middle."""
    rows: list[dict[str, Any]] = [{"step": 0, "epoch": 0.0, "time_s": 0.1, **_evaluated(0.6414)}]
    for step in range(1, num_steps + 1):
        row = {"step": step, "epoch": step / 20, "time_s": 0.5 * step}
        rows.append({**row, "train/loss": 0.9 * math.exp(-step / 20), "train/lr": 5e-5})
        if step % every == 0:
            accuracy = 0.8 - abs(step / num_steps - 0.5) / 10
            rows.append({**row, **_evaluated(accuracy)})
    return rows


def example_card(**changes: Any) -> CardData:
    fields: dict[str, Any] = {
        "model_name": "MiniLM for products",
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "encoder": {
            "architecture": "SentenceTransformer(\n  (0): Transformer({})\n  (1): Pooling({})\n)",
            "max_seq_length": 256,
            "output_dimension": 384,
            "similarity": "cosine",
            "prompts": {},
            "num_parameters": 22_713_216,
        },
        "sources": (_products(), _sts()),
        "hyperparameters": {
            "global_batch_size": 64,
            "optimizer": {"lr": 5e-5, "betas": [0.9, 0.99]},
        },
        "non_default_hyperparameters": {"global_batch_size": 64},
        "training_log": training_log(),
        "evaluations": (triplet_evaluation(), sts_evaluation()),
        "best_step": 20,
        "versions": {"Python": "3.11.9", "PyTorch": "2.13.0+cpu"},
        "training_time_s": 4000.0,
        "evaluation_time_s": 90.0,
        "hardware": "4 x NVIDIA H100 80GB HBM3",
        "world_size": 4,
        "strategy": "ddp",
        "precision": "bf16",
        "global_batch_size": 64,
        "gradient_caching": True,
        "language": ("en",),
        "license": "apache-2.0",
        "tags": ("products",),
        "widget": choose_widget(TRIPLETS),
        "usage": UsageExample(
            queries=("girls white shoes",),
            documents=("adidas Coast Star, white", "LED desk lamp"),
            similarities=((1.0, 0.71, 0.02), (0.71, 1.0, -0.05), (0.02, -0.05, 1.0)),
        ),
        "code_version": "0123abcd",
    }
    return CardData(**(fields | changes))


def _products() -> SourceCard:
    return SourceCard(
        name="products",
        size=9090,
        columns=("query", "positive", "negative"),
        stats={"query": column_stats([4, 5, 9]), "positive": column_stats([8, 20, 30])},
        stats_rows=3,
        samples=TRIPLETS[:3],
        loss="GIST",
        published=GIST().published,
        loss_parameters={"temperature": 0.01, "margin_strategy": "absolute"},
    )


def _sts() -> SourceCard:
    return SourceCard(
        name="sts_dev",
        size=1500,
        columns=("sentence1", "sentence2", "score"),
        stats={"score": column_stats([0.0, 0.5, 1.0], type="float")},
        stats_rows=3,
        samples=(("A plane takes off.", "An air plane takes off.", 1.0),),
        loss="CoSENT",
        published=CoSENT().published,
    )


def _evaluated(accuracy: float) -> dict[str, float]:
    return {
        "eval/esci-dev_cosine_accuracy": accuracy,
        "eval/esci-dev_dot_accuracy": 0.5,
        "eval/sts_dev_spearman_cosine": accuracy + 0.04,
    }
