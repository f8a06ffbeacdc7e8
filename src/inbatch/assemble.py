"""From a checked configuration to the parts of a run. Nothing here decides; it builds and checks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from inbatch.callbacks.checkpoints import LAST, Checkpoints
from inbatch.callbacks.evaluation import Evaluation
from inbatch.callbacks.metrics_file import MetricsFile
from inbatch.callbacks.progress import Progress
from inbatch.callbacks.step_log import StepLog
from inbatch.callbacks.summary import Summary
from inbatch.config import PRECISIONS, RunConfig, rows_per_rank
from inbatch.data.collate import Collator
from inbatch.data.demo import write_demo
from inbatch.data.plan import duplicate_share
from inbatch.data.report import DataReport, build_report, write
from inbatch.data.sources import Source
from inbatch.datamodule import BatchModule, LoaderSettings
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.evaluation import Evaluator
from inbatch.export.model import export_model
from inbatch.guide import Guide, LiveGuide, StoredGuide
from inbatch.guide.fill import FillSettings
from inbatch.hydra_app import instantiate
from inbatch.losses.base import Loss
from inbatch.module import BiEncoderModule, StepSettings
from inbatch.strategies import Scaling, World


@dataclass(frozen=True, slots=True)
class Parts:
    """What watches a run."""

    evaluation: Evaluation | None
    checkpoints: Checkpoints
    metrics: MetricsFile
    summary: Summary
    callbacks: list[Callback]


def prepare_output(run: RunConfig, output_dir: Path) -> None:
    """Make the output directory, the demo's data where it is asked for, and the resolved config."""
    prepare_data(run)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "checkpoints").mkdir(exist_ok=True)
    OmegaConf.save(OmegaConf.structured(run), output_dir / "config.yaml", resolve=True)


def prepare_data(run: RunConfig) -> None:
    """Write the demo's data where it is asked for."""
    if run.data.demo:
        _write_demo(Path(run.data_dir) / "demo")


def make_encoder(run: RunConfig, sources: Sequence[Source]) -> Encoder:
    """The encoder in training; its tokenizer may be learned from the training texts."""
    return instantiate(run.encoder, texts=partial(_texts, sources))  # type: ignore[no-any-return]


def make_guide(
    run: RunConfig, sources: Sequence[Source], losses: Mapping[str, Loss]
) -> Guide | None:
    """The frozen guide, if a loss needs one."""
    guided = [source for source in sources if losses[source.name].needs_guide]
    if not guided:
        return None
    encoder = instantiate(run.guide.encoder)
    if run.guide.mode == "live":
        return LiveGuide(encoder)
    return StoredGuide(
        encoder,
        guided,
        store_dir=run.guide.store_dir,
        store_dtype=run.guide.store_dtype,
        fill=FillSettings(chunk_tokens=run.guide.chunk_tokens),
    )


def make_losses(run: RunConfig, sources: Sequence[Source], *, guided: bool) -> dict[str, Loss]:
    """The loss of each source: one for all, or one per source name; checked against the columns."""
    if "_target_" in run.loss:
        losses: dict[str, Loss] = dict.fromkeys((s.name for s in sources), instantiate(run.loss))
    else:
        losses = {str(name): instantiate(node) for name, node in run.loss.items()}
    for source in sources:
        if source.name not in losses:
            raise ConfigError(
                f"loss has no entry for source {source.name!r}: add loss.{source.name}, or give one "
                "loss for all sources"
            )
        check_loss(losses[source.name], source, guided=guided)
    return losses


def check_loss(loss: Loss, source: Source, *, guided: bool) -> None:
    """Whether a source has what its loss needs.

    Raises:
        ConfigError: labels, a guide or columns are missing, or there are too many columns.
    """
    name, columns = type(loss).__name__, len(source.columns)
    if loss.needs_labels and not source.has_labels:
        raise ConfigError(
            f"loss {name} needs labels, and source {source.name!r} has none: name its label column in "
            f"data.train.{source.name}.columns.label, or choose a loss for pairs such as loss=mnrl"
        )
    if loss.needs_guide and not guided:
        raise ConfigError(f"loss {name} needs a guide: set guide=minilm, or guide.encoder.path=...")
    if columns < loss.min_columns or (loss.max_columns is not None and columns > loss.max_columns):
        span = (
            f"{loss.min_columns} to {loss.max_columns}"
            if loss.max_columns
            else f"at least {loss.min_columns}"
        )
        raise ConfigError(
            f"loss {name} takes {span} text columns, and source {source.name!r} has {columns} "
            f"({', '.join(source.columns)}): set data.train.{source.name}.columns"
        )


def make_data(
    run: RunConfig, sources: Sequence[Source], encoder: Encoder, guide: Guide | None
) -> BatchModule:
    """The batches of the run."""
    collator = Collator(
        tokenizer=encoder.tokenizer,
        chunk_rows=run.gradcache.chunk_rows,
        chunk_tokens=run.gradcache.chunk_tokens,
        prompts=encoder.role_prompts,
        guide_tokenizer=guide.tokenizer if guide else None,
        guide_chunk_tokens=run.guide.chunk_tokens if guide else None,
        guide_prompts=guide.prompts if guide else None,
    )
    return BatchModule(
        sources,
        sampler=instantiate(run.sampler),
        collator=collator,
        global_batch_size=run.global_batch_size,
        seed=run.seed,
        drop_last=run.drop_last,
        loader=LoaderSettings(
            num_workers=run.data.loader.num_workers, prefetch=run.data.loader.prefetch
        ),
    )


@rank_zero_only
def write_report(
    run: RunConfig, sources: Sequence[Source], data: BatchModule, encoder: Encoder, output_dir: Path
) -> DataReport:
    """Look at the data, write `data_report.*`, and say what a person should know."""
    plan = data.plan(0)
    report = build_report(
        sources,
        tokenizer=encoder.tokenizer,
        prompts=encoder.role_prompts,
        duplicate_share=lambda source: duplicate_share(
            source.text_hashes(), plan, source=source.name
        ),
    )
    write(report, output_dir)
    return report


def make_module(
    run: RunConfig,
    encoder: Encoder,
    losses: Mapping[str, Loss],
    guide: Guide | None,
    scaling: Scaling,
) -> BiEncoderModule:
    """The LightningModule."""
    return BiEncoderModule(
        encoder=encoder,
        losses=losses,
        scaling=scaling,
        optimizer=instantiate(run.optimizer),
        schedule=instantiate(run.schedule),
        guide=guide,
        settings=StepSettings(
            gather=run.gather,  # type: ignore[arg-type]
            keep_gib=run.gradcache.keep_gib,
            accumulate=run.accumulate,
            clip_norm=run.clip_norm,
            learning_rate_mapping=run.learning_rate_mapping,
            compile=run.compile,
            seed=run.seed,
        ),
    )


def make_parts(
    run: RunConfig,
    evaluators: Mapping[str, Evaluator],
    module: BiEncoderModule,
    rows: Mapping[str, Mapping[str, str]],
    output_dir: Path,
) -> Parts:
    """Callbacks, in the order in which they run after a step: evaluate, log, save."""
    evaluation = None
    if evaluators:
        evaluation = Evaluation(
            list(evaluators.values()),
            every_steps=run.evaluation.every_steps,
            at_start=run.evaluation.at_start,
            every_epoch=run.evaluation.every_epoch,
            best_metric=run.evaluation.best_metric,
            mode=run.evaluation.mode,  # type: ignore[arg-type]
            on_best=lambda trainer: export_model(trainer, module, output_dir / "model"),
        )
    checkpoints = Checkpoints(
        output_dir / "checkpoints",
        every_steps=run.trainer.checkpoint_every_steps,
        keep=run.trainer.checkpoint_keep,
    )
    summary = Summary(rows)
    watching: list[Callback] = [summary, StepLog(every_steps=run.trainer.log_every_steps)]
    watching.append(Progress(every_steps=run.trainer.log_every_steps))
    if evaluation is not None:
        watching.append(evaluation)
    return Parts(
        evaluation, checkpoints, MetricsFile(output_dir), summary, [*watching, checkpoints]
    )


def make_trainer(run: RunConfig, world: World, scaling: Scaling, parts: Parts) -> Trainer:
    """The Lightning trainer; it brings no sampler, bar or checkpoint of its own."""
    return Trainer(
        accelerator=world.accelerator,
        devices=world.devices,
        num_nodes=world.num_nodes,
        strategy=scaling.lightning_strategy(
            accelerator=world.accelerator,
            num_processes=world.devices,
            num_nodes=world.num_nodes,
            clip_norm=run.clip_norm,
        ),
        precision=PRECISIONS[run.precision],  # type: ignore[arg-type]
        max_epochs=run.trainer.max_epochs,
        max_steps=run.trainer.max_steps,
        logger=[parts.metrics, *(instantiate(node) for node in run.logger.values())],
        callbacks=parts.callbacks,
        deterministic=run.deterministic,
        log_every_n_steps=1,  # Lightning warns of epochs shorter than this; StepLog has its own grid
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )


def run_rows(
    run: RunConfig,
    world: World,
    sources: Sequence[Source],
    encoder: Encoder,
    losses: Mapping[str, Loss],
) -> dict[str, dict[str, str]]:
    """What the table before step 1 says."""
    local = rows_per_rank(run.global_batch_size, world.size)
    cache = run.gradcache
    chunk = (
        f"{cache.chunk_rows} texts"
        if cache.chunk_rows
        else f"{cache.chunk_tokens} tokens"
        if cache.chunk_tokens
        else "whole batch"
    )
    keep = "all graphs kept" if cache.keep_gib is None else f"{cache.keep_gib:g} GiB of graphs kept"
    described = encoder.describe()
    return {
        "data": {s.name: f"{s.num_rows:,} rows: {', '.join(s.columns)}" for s in sources},
        "encoder": {
            "model": f"{described['transformer']} ({described['base_model'] or 'random weights'})",
            "embedding": f"{described['output_dimension']} dimensions, {'+'.join(described['pooling'])} pooling",
            "max length": f"{described['max_seq_length']} tokens",
        },
        "batch": {
            "global": f"{run.global_batch_size:,} rows, {local:,} per rank",
            "optimizer step": f"{run.accumulate} global batches"
            if run.accumulate > 1
            else "one global batch",
            "chunk": f"{chunk}; {keep}",
        },
        "loss": {
            name: json.dumps({type(loss).__name__: _plain(loss)}) for name, loss in losses.items()
        },
        "guide": _guide_rows(run, losses),
    }


def resume_path(run: RunConfig, output_dir: Path) -> Path | None:
    """The checkpoint to go on from: the run's own for "auto", none for "never", else the named one."""
    if run.resume == "never":
        return None
    last = output_dir / "checkpoints" / LAST
    if run.resume == "auto":
        return last if last.exists() else None
    path = Path(run.resume)
    if not path.exists():
        raise ConfigError(f"resume={run.resume!r} does not exist: set auto, never, or a checkpoint")
    return path


def _texts(sources: Sequence[Source]) -> Iterator[str]:
    import numpy as np

    for source in sources:
        for start in range(0, source.num_rows, 4096):
            rows = np.arange(start, min(start + 4096, source.num_rows))
            for column in source.read(rows)[0]:
                yield from column


def _guide_rows(run: RunConfig, losses: Mapping[str, Loss]) -> dict[str, str]:
    if not any(loss.needs_guide for loss in losses.values()):
        return {"model": "none"}
    where = f"stored in {run.guide.store_dir}, {run.guide.store_dtype}"
    return {
        "model": str(run.guide.encoder.get("path")),
        "embeddings": where if run.guide.mode == "stored" else "of every batch anew",
    }


def _plain(loss: Loss) -> dict[str, Any]:
    values = asdict(loss)
    return {k: v if isinstance(v, int | float | str | None) else str(v) for k, v in values.items()}  # type: ignore[call-overload]


@rank_zero_only
def _write_demo(folder: Path) -> None:
    if not (folder / "retrieval" / "qrels.parquet").exists():
        write_demo(folder)
