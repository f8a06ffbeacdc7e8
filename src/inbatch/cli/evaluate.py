"""`inbatch evaluate`: a saved model and files -> a table and `metrics.json`.

The encoder and the evaluators are those of a training run, under the same keys; so are the metrics. Several
ranks share the texts to embed and the queries to search for, and give the numbers of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.config.check_judging import check_evaluate
from inbatch.config.judging import EvaluateConfig
from inbatch.console import run_table, show_table
from inbatch.evaluation import Evaluator
from inbatch.evaluation.base import contents_of
from inbatch.evaluation.parts import leaves, names_of
from inbatch.evaluation.views import View, evaluate_views, labelled_key, views_of
from inbatch.files import write_json
from inbatch.run.judging import join_ranks, make_evaluators, ready_to_judge
from inbatch.run.mteb_tasks import load_tasks, run_tasks
from inbatch.run.quiet import quiet

METRICS = "metrics.json"
_EMBEDDINGS = "embeddings"  # kept in output_dir meanwhile


def evaluate(run: EvaluateConfig) -> dict[str, float]:
    """Return all metrics, {name: value}, and write them to `metrics.json` in the output directory.

    Raises:
        ConfigError: a model, file or device that cannot be used.
    """
    views = views_of(run.evaluation.truncate_dims, run.evaluation.quantisations)
    evaluators, tasks = make_evaluators(run.evaluation.evaluators), load_tasks(run.mteb)
    place = join_ranks(run)
    encoder, encode = ready_to_judge(
        run.encoder, evaluators, views, place=place, chunk_tokens=run.chunk_tokens
    )
    folder = Path(run.output_dir)
    metrics = evaluate_views(evaluators, encode, views, folder / f"{_EMBEDDINGS}.{place.rank}")
    results = folder if place.rank == 0 else None
    metrics |= run_tasks(tasks, encode, encoder, model=str(run.encoder["model"]), folder=results)
    if place.rank == 0:
        _write(run, metrics, folder / METRICS)
        _show(evaluators, metrics, views, folder / METRICS)
    return metrics


def primary_metrics(
    evaluators: Sequence[Evaluator], views: Sequence[View]
) -> dict[View, dict[str, str]]:
    """The keys of the metric of each set, of single sets and of means, in each view."""
    each = list(dict.fromkeys([*leaves(evaluators), *evaluators]))
    return {
        view: {
            one.primary_metric: labelled_key(one.primary_metric, names_of(one), view)
            for one in each
        }
        for view in views
    }


def _write(run: EvaluateConfig, metrics: dict[str, float], path: Path) -> None:
    finite = {key: None if math.isnan(value) else value for key, value in metrics.items()}
    model = run.encoder.get("model")
    write_json(path, {"model": model, "data": run.data.eval, "metrics": finite})


def _show(
    evaluators: Sequence[Evaluator], metrics: dict[str, float], views: Sequence[View], path: Path
) -> None:
    data = contents_of({evaluator.name: evaluator for evaluator in evaluators})
    shown = {key: f"{value:.4f}" for key, value in metrics.items()}
    run_table({"data": data, "metrics": shown, "written": {"metrics": str(path)}})
    if len(views) > 1 and evaluators:
        found = primary_metrics(evaluators, views)
        header = ["embeddings", *found[View()]]
        rows = [
            [view.shown, *(f"{metrics[key]:.4f}" for key in keys.values())]
            for view, keys in found.items()
        ]
        show_table(header, rows)


def main(typed: str | None = None) -> None:
    """Evaluate as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="evaluate", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        evaluate(check_evaluate(cfg))
