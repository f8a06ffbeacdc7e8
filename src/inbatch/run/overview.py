"""The output of a run before its first step: a table of its parts, and the data report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from inbatch.config.check import rows_per_rank
from inbatch.config.schema import EvaluationConfig, GradcacheConfig, GuideConfig, RunConfig
from inbatch.console import make_console, print_plain
from inbatch.data.collate import MIXED
from inbatch.data.plan.plan import duplicate_share
from inbatch.data.plan.samplers.group_by_label import GroupByLabel, num_lone_labels
from inbatch.data.report.build import build_report, write
from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder
from inbatch.evaluation import Evaluator
from inbatch.evaluation.base import contents_of
from inbatch.losses.base import Loss
from inbatch.run.datamodule import BatchModule
from inbatch.run.memory_plan import GIB, MemoryPlan
from inbatch.run.parts import Parts, parameters_of
from inbatch.run.precision import ChosenPrecision
from inbatch.strategies import World, is_first_process


def overview(
    run: RunConfig, world: World, parts: Parts, plan: MemoryPlan, precision: ChosenPrecision
) -> dict[str, dict[str, str]]:
    """The table of what will run: {section: {name: value}}."""
    local = rows_per_rank(run.global_batch_size, world.size)
    batches = "global batches" if run.accumulate > 1 else "global batch"
    number = f"{run.accumulate}" if run.accumulate > 1 else "one"
    return {
        "data": {source.name: _source_text(source) for source in parts.sources},
        "encoder": _encoder_rows(parts.encoder),
        "batch": {
            "global": f"{run.global_batch_size:,} rows, {local:,} per rank",
            "optimizer step": f"{number} {batches}",
            "chunk": _chunk_text(run.gradcache, plan),
            "estimated memory": plan.memory.describe(),
        },
        "loss": {
            name: json.dumps({type(loss).__name__: parameters_of(loss)}, default=str)
            for name, loss in parts.losses.items()
            if name != MIXED
        },
        **_known_positives(parts.sources, parts.losses),
        "guide": _guide_rows(run.guide, parts.losses),
        "evaluation": _evaluation_rows(parts.evaluators, run.evaluation),
        "run": {"precision": precision.describe()},
    }


def write_report(parts: Parts, data: BatchModule, path: Path) -> None:
    """Look at the data, write the report to `path`, and print what a person should know."""
    if not is_first_process():
        return
    plan = data.plan(0)
    report = build_report(
        parts.sources,
        tokenizer=parts.encoder.tokenizer,
        prompts=parts.encoder.role_prompts,
        in_batch=[
            name
            for name, loss in parts.losses.items()
            if loss.scope == "candidates" and not loss.needs_labels
        ],
        guided=[name for name, loss in parts.losses.items() if loss.filters_by_guide],
        losses=parts.losses,
        masked=[name for name, loss in parts.losses.items() if loss.needs_text_ids],
        duplicate_share=lambda source: duplicate_share(
            source.text_hashes() if source.ragged is None else source.ragged.conflict_hashes(),
            plan,
            source=source.name,
        ),
        plans={type(parts.sampler).__name__: plan},
        skipped=plan.skipped,
    )
    write(report, path)
    console = make_console()
    for line in [*report.warnings, *_lone_labels(parts)]:
        print_plain(f"data  {line}", console=console)


def _lone_labels(parts: Parts) -> list[str]:
    """What to say of labels of one row under a sampler that groups rows by them."""
    sampler = getattr(parts.sampler, "within", parts.sampler)
    if not isinstance(sampler, GroupByLabel):
        return []
    counts = {
        source.name: num_lone_labels(labels)
        for source in parts.sources
        if (labels := source.labels()) is not None
    }
    return [
        f"{count:,} labels of source '{name}' have one row, which is in no batch."
        for name, count in counts.items()
        if count
    ]


def _known_positives(
    sources: Sequence[Source], losses: Mapping[str, Loss]
) -> dict[str, dict[str, str]]:
    """What becomes of negatives that are known positives: samplers do not keep those of lists apart."""
    ragged = [source.name for source in sources if source.is_ragged]
    said = {
        name: "left out of the negatives, since rows have lists"
        if losses[name].needs_text_ids
        else "not left out of the negatives"
        for name in ragged
        if losses[name].scope == "candidates"
    }
    return {"known positives": said} if said else {}


def _source_text(source: Source) -> str:
    read = source.intake
    left_out = read.read - read.used
    unit = "" if read.is_rows else f"{read.unit} "
    without = f" ({left_out:,} {unit}left out)" if left_out else ""
    how = f"; {source.read_as}" if source.read_as else ""
    return f"{source.num_rows:,} rows{without}: {', '.join(source.columns)}{how}"


def _encoder_rows(encoder: Encoder) -> dict[str, str]:
    described = encoder.describe()
    pooling = "+".join(described["pooling"])
    adapter = described.get("adapter")
    return {
        "model": f"{described['transformer']} ({described['base_model'] or 'random weights'})",
        "embedding": f"{described['output_dimension']} dimensions, {pooling} pooling",
        "max length": f"{described['max_seq_length']} tokens",
        "attention": described["attention"],
        **({} if adapter is None else {"adapter": adapter}),
    }


def _chunk_text(cache: GradcacheConfig, plan: MemoryPlan) -> str:
    limits = [(cache.chunk_size, "texts"), (cache.chunk_tokens, "tokens")]
    chunk = ", ".join(f"at most {most} {of}" for most, of in limits if most) or "whole batch"
    return f"{chunk}; {_kept_text(plan)}"


def _kept_text(plan: MemoryPlan) -> str:
    """The graphs that a step will keep, which may be fewer than there is room for."""
    kept, limit = plan.memory.kept / GIB, plan.keep_gib
    if limit == 0:
        return "no graphs kept"
    if limit is None or kept < limit:
        room = "" if limit is None else f", room for {limit:g}"
        return f"all graphs kept (about {kept:.2g} GiB{room})"
    return f"{limit:g} GiB of graphs kept"


def _evaluation_rows(
    evaluators: Mapping[str, Evaluator], config: EvaluationConfig
) -> dict[str, str]:
    if not evaluators:
        return {"sets": "none, so the last model is the result"}
    first = next(iter(evaluators.values()))
    metric = config.best_metric or first.primary_metric
    best = "largest" if config.mode == "max" else "smallest"
    return {
        "sets": ", ".join(evaluators),
        **{f"of {name}": contents for name, contents in contents_of(evaluators).items()},
        "model": f"that of the {best} {metric}",
    }


def _guide_rows(guide: GuideConfig, losses: Mapping[str, Loss]) -> dict[str, str]:
    if not any(loss.needs_guide for loss in losses.values()):
        return {"model": "none"}
    stored = f"stored in {guide.store_dir}, {guide.store_dtype}"
    return {
        "model": str(guide.model),
        "embeddings": stored if guide.mode == "stored" else "computed for every batch",
    }
