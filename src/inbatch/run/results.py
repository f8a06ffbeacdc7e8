"""After training: plots, model card, and the paths that matter."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer

from inbatch.config.check import RunConfig
from inbatch.data.collate import tokenize_columns
from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder, build_encoder
from inbatch.evaluation import Evaluator
from inbatch.export.card import framework_versions, write_card
from inbatch.export.card_data import (
    CardData,
    ColumnStats,
    EvaluationCard,
    SourceCard,
    UsageExample,
    choose_widget,
    column_stats,
    has_roles,
)
from inbatch.export.card_sections import in_words
from inbatch.export.metrics_log import read_metrics
from inbatch.export.model import export_model
from inbatch.export.model_name import local_name
from inbatch.export.plots import plot_run
from inbatch.export.settings import changed, composed_defaults, public
from inbatch.losses.base import Loss
from inbatch.run.callbacks import Parts
from inbatch.run.module import BiEncoderModule
from inbatch.sweep.points import Result, write_result

STATS_ROWS = 1000
WIDGET_ROWS = 1000


def finish(
    run: RunConfig,
    trainer: Trainer,
    module: BiEncoderModule,
    sources: Sequence[Source],
    evaluators: Mapping[str, Evaluator],
    parts: Parts,
    output_dir: Path,
    *,
    training_time_s: float,
) -> None:
    """Export the model unless an evaluation has chosen one, write plots and card, print the summary."""
    model_dir = output_dir / "model"
    chosen = parts.evaluation is not None and parts.evaluation.best_step is not None
    if chosen and not trainer.strategy.broadcast(model_dir.exists()):
        parts.evaluation.forget_best()  # resumed from a run elsewhere, whose folder has the model
        chosen = False
    if not chosen:
        export_model(trainer, module, model_dir)
    if not trainer.is_global_zero:
        return
    rows = read_metrics(output_dir / "metrics.jsonl")
    best_step = parts.evaluation.best_step if parts.evaluation else None
    chosen_by = {} if best_step is None else {parts.evaluation.best_metric: best_step}
    plots = plot_run(rows, output_dir / "plots", best_steps=chosen_by)
    encoder = build_encoder(str(model_dir), trust_remote_code=True)  # this run has written it
    settings, base = asdict(run), module.encoder.base_model
    card = CardData(
        model_name=run.card.model_name or run.name,
        encoder=encoder.describe(),
        base_model=base,
        base_name=None if base is None else local_name(base),
        sources=[_source_card(s, encoder, module.losses[s.name], run) for s in sources],
        hyperparameters=public(settings),
        non_default_hyperparameters=public(
            changed(settings, {**asdict(RunConfig()), **composed_defaults()})
        ),
        training_log=rows,
        evaluations=_evaluation_cards(evaluators, parts),
        best_step=best_step,
        versions=framework_versions(),
        training_time_s=parts.summary.training_s,
        evaluation_time_s=parts.summary.evaluation_s if evaluators else None,
        hardware=_hardware(trainer),
        world_size=trainer.world_size,
        strategy=type(module.strategy).__name__,
        precision=run.precision,
        global_batch_size=run.global_batch_size,
        gradient_caching=run.gradcache.keep_gib is not None,
        language=run.card.language,
        license=run.card.license,
        tags=run.card.tags,
        widget=choose_widget([texts for source in sources for texts in _rows(source, WIDGET_ROWS)]),
        usage=_usage(encoder, sources[0]),
        code_version=_commit(),
    )
    card_path = write_card(card, model_dir, plots=plots)
    result = _result(run, parts)
    write_result(result, output_dir)
    best = {} if result.value is None else {"best/value": result.value, "best/step": result.step}
    unsent = parts.wandb.finish(trainer, best, model_dir=model_dir)
    rest_s = training_time_s - parts.summary.training_s - parts.summary.evaluation_s
    facts = {"launch": f"{in_words(rest_s)} for ranks, strategy and guide"}
    if parts.evaluation is not None and parts.evaluation.best_value is not None:
        facts["best"] = (
            f"{parts.evaluation.best_metric} {parts.evaluation.best_value:.4f} "
            f"at step {parts.evaluation.best_step}"
        )
    paths = {
        "model": model_dir,
        "card": card_path,
        "metrics": output_dir / "metrics.jsonl",
        "plots": output_dir / "plots",
        "checkpoint": output_dir / "checkpoints" / "last.ckpt",
        **unsent,
    }
    parts.summary.show(
        trainer,
        before={} if parts.evaluation is None else parts.evaluation.first,
        after={} if parts.evaluation is None else parts.evaluation.best or parts.evaluation.last,
        facts=facts,
        paths={name: str(p) for name, p in paths.items()},
    )


def _result(run: RunConfig, parts: Parts) -> Result:
    evaluation = parts.evaluation
    if evaluation is None:
        return Result()
    return Result(
        metric=evaluation.best_metric,
        mode="max" if run.evaluation.mode == "max" else "min",
        value=evaluation.best_value,
        step=evaluation.best_step,
        pruned=parts.pruning is not None and parts.pruning.pruned_step is not None,
    )


def _rows(source: Source, limit: int) -> list[tuple[str, ...]]:
    columns, _ = source.read(np.arange(min(limit, source.num_rows)))
    return list(zip(*columns, strict=True))


def _source_card(source: Source, encoder: Encoder, loss: Loss, run: RunConfig) -> SourceCard:
    num_rows = min(STATS_ROWS, source.num_rows)
    columns, labels = source.read(np.arange(num_rows))
    texts = source.column_prompts(encoder.role_prompts)
    token_ids, _ = tokenize_columns(columns, texts, tokenizer=encoder.tokenizer)
    stats: dict[str, ColumnStats] = {}
    for number, name in enumerate(source.columns):
        part = token_ids[number * num_rows : (number + 1) * num_rows]
        stats[name] = column_stats([len(ids) for ids in part])
    names = list(source.columns)
    samples: list[tuple[str | float, ...]] = [tuple(row) for row in zip(*columns)][:3]
    if labels is not None:
        names.append(source.roles.label or "label")
        stats[names[-1]] = column_stats([float(v) for v in labels], type="float")
        samples = [(*row, float(v)) for row, v in zip(samples, labels)]
    guide = {"guide": local_name(str(run.guide.model))} if loss.needs_guide else {}
    return SourceCard(
        name=source.name,
        size=source.num_rows,
        columns=names,
        stats=stats,
        stats_rows=num_rows,
        samples=samples,
        loss=type(loss).__name__,
        loss_parameters={**guide, **asdict(loss)},  # type: ignore[call-overload]
    )


def _evaluation_cards(evaluators: Mapping[str, Evaluator], parts: Parts) -> list[EvaluationCard]:
    if parts.evaluation is None:
        return []
    best, before = parts.evaluation.best or parts.evaluation.last, parts.evaluation.first
    cards = []
    for evaluator in evaluators.values():
        prefix = f"{evaluator.name}_" if evaluator.name else ""
        cards.append(
            EvaluationCard(
                evaluator=type(evaluator).__name__,
                description=evaluator.description,
                name=evaluator.name,
                metrics={k: v for k, v in best.items() if k.startswith(prefix)},
                before={k: v for k, v in before.items() if k.startswith(prefix)} or None,
                primary_metric=evaluator.primary_metric,
            )
        )
    return cards


def _usage(encoder: Encoder, source: Source) -> UsageExample:
    rows = _rows(source, 3)
    query, documents = rows[0][0], [row[1] for row in rows]
    if has_roles(encoder.describe()):
        left, right = (
            encoder.encode([query], role="query"),
            encoder.encode(documents, role="document"),
        )
    else:
        left = right = encoder.encode([query, *documents])
    scores = torch.nn.functional.normalize(left) @ torch.nn.functional.normalize(right).T
    return UsageExample(queries=[query], documents=documents, similarities=scores.tolist())


def _hardware(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)} per rank"


def _commit() -> str | None:
    """Commit of the user's repository, if the run was started inside one."""
    git = shutil.which("git")  # a container may lack it
    if git is None:
        return None
    found = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
