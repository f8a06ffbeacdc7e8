"""`inbatch evaluate`: a saved model and files -> a table and `metrics.json`.

The encoder and the evaluators are those of a training run, under the same keys; so are the metrics.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from omegaconf import DictConfig

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.config.check import check_evaluate
from inbatch.config.instantiate import instantiate
from inbatch.config.schema import EvaluateConfig
from inbatch.console import run_table
from inbatch.evaluation.base import contents_of, follow_model
from inbatch.evaluation.encode_texts import EncodeTexts, on_device
from inbatch.files import write_json
from inbatch.run.quiet import quiet

METRICS = "metrics.json"


def evaluate(run: EvaluateConfig) -> dict[str, float]:
    """Return all metrics, {name: value}, and write them to `metrics.json` in the output directory.

    Raises:
        ConfigError: a model, file or device that cannot be used.
    """
    evaluators = instantiate(run.evaluation.evaluators)
    device = run.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = on_device(instantiate(run.encoder, key="encoder"), device)
    follow_model(evaluators.values(), encoder.similarity)
    encode = EncodeTexts(encoder, run.chunk_tokens)
    metrics: dict[str, float] = {}
    for evaluator in evaluators.values():
        metrics.update(evaluator(encode))
    result = {
        "model": run.encoder.get("model"),
        "data": run.data.eval,
        "metrics": {key: None if math.isnan(value) else value for key, value in metrics.items()},
    }
    output = Path(run.output_dir) / METRICS
    write_json(output, result)
    shown = {key: f"{value:.4f}" for key, value in metrics.items()}
    data = contents_of(evaluators)
    run_table({"data": data, "metrics": shown, "written": {"metrics": str(output)}})
    return metrics


def main(typed: str | None = None) -> None:
    """Evaluate as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="evaluate", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        evaluate(check_evaluate(cfg))
