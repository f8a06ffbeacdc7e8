"""Models, checkpoints, runs or a sweep -> one model with a card, and `merge.json`."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inbatch.config.instantiate import instantiate
from inbatch.config.merging import MergeConfig
from inbatch.console import make_console, print_plain, run_table
from inbatch.device.capability import default_accelerator
from inbatch.evaluation.base import contents_of
from inbatch.export.card import write_card
from inbatch.files import write_json
from inbatch.folder.paths import RunFolder
from inbatch.merging.card import make_card
from inbatch.merging.inputs import find_ingredients
from inbatch.merging.judge import Judge, Metrics
from inbatch.merging.merge import RECORD, Merged, check_method, merge


def merge_models(run: MergeConfig) -> Merged:
    """Merge as a checked configuration says; write the model, its card and `merge.json`.

    Raises:
        ConfigError: models that do not go together, or a value or file that cannot be used.
    """
    ingredients = find_ingredients(run.models, best=run.best)
    judged = bool(run.evaluation.evaluators)
    check_method(run.method, len(ingredients), run.weights, judged=judged)
    device = default_accelerator() if run.device == "auto" else run.device
    judge = Judge(
        evaluators=instantiate(run.evaluation.evaluators),
        metric=run.evaluation.best_metric,
        largest=run.evaluation.mode == "max",
        device=device,
        chunk_tokens=run.chunk_tokens,
    )
    folder, console = RunFolder(Path(run.output_dir)), make_console()
    run_table({"data": contents_of(judge.evaluators)}, console=console)
    merged = merge(
        ingredients,
        folder.model,
        method=run.method,
        weights=run.weights,
        judge=judge,
        say=lambda line: print_plain(line, console=console),
    )
    for note in merged.notes:
        print_plain(note, console=console)
    name = Path(run.output_dir).resolve().name
    card = make_card(
        merged, folder.model, name=name, method=run.method, evaluators=judge.evaluators
    )
    written = {"model": folder.model, "card": write_card(card, folder.model)}
    written["record"] = folder.path / RECORD
    write_json(written["record"], _record(run, merged))
    shares = zip(ingredients, merged.shares, strict=True)
    run_table(
        {
            "share": {each.name: f"{share:.4f}" if share else "left out" for each, share in shares},
            "metrics": {key: f"{value:.4f}" for key, value in merged.metrics.items()},
            "written": {key: str(path) for key, path in written.items()},
        },
        console=console,
    )
    return merged


def _record(run: MergeConfig, merged: Merged) -> dict[str, Any]:
    """What was merged, for programs."""

    def plain(metrics: Metrics) -> dict[str, float | None]:
        return {key: None if math.isnan(value) else value for key, value in metrics.items()}

    each = zip(merged.ingredients, merged.shares, merged.each, strict=True)
    return {
        "settings": asdict(run),
        "models": [
            {"model": model.name, "share": share, "metrics": plain(metrics)}
            for model, share, metrics in each
        ],
        "metric": merged.metric,
        "metrics": plain(merged.metrics),
        "notes": list(merged.notes),
    }
