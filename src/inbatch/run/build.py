"""From a checked configuration to the parts of a run. Nothing here decides; it builds and checks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from inbatch.config.check import RunConfig, rows_per_rank
from inbatch.config.instantiate import instantiate
from inbatch.config.targets import errors_under
from inbatch.console import make_console, print_plain
from inbatch.data.collate import MIXED, Collator
from inbatch.data.plan.plan import duplicate_share
from inbatch.data.report.build import build_report, write
from inbatch.data.sources.load import Source
from inbatch.data.sources.source import check_stored_guide
from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.resolve import resolve_directory
from inbatch.errors import ConfigError
from inbatch.guide import Guide, LiveGuide, StoredGuide
from inbatch.guide.fill import FillSettings
from inbatch.losses.base import Loss
from inbatch.run.auto_sizes import guide_chunk_tokens, num_workers
from inbatch.run.compatibility import check_loss
from inbatch.run.datamodule import BatchModule, LoaderSettings
from inbatch.run.folder import CONFIG
from inbatch.run.memory_plan import MemoryPlan
from inbatch.run.module import BiEncoderModule, StepSettings
from inbatch.strategies import Strategy, World, is_first_process


def prepare_output(run: RunConfig, output_dir: Path) -> None:
    """Make the output directory and write the resolved config; once all else has been checked.

    One process writes, at once: others may just read the file, to see whose directory it is.
    """
    (output_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    if is_first_process():
        fresh = output_dir / f"{CONFIG}.new"
        OmegaConf.save(OmegaConf.create(asdict(run)), fresh)
        os.replace(fresh, output_dir / CONFIG)


def prepare_data(run: RunConfig) -> None:
    """Write the data that a generator makes, see `DataConfig.generate`."""
    if run.data.generate is not None:
        instantiate(run.data.generate, key="data.generate")


def make_encoder(run: RunConfig, sources: Sequence[Source]) -> Encoder:
    """The encoder in training; its tokenizer may be learned from the training texts."""
    return instantiate(run.encoder, key="encoder", texts=partial(_texts, sources))  # type: ignore[no-any-return]


def make_guide(
    run: RunConfig, world: World, sources: Sequence[Source], losses: Mapping[str, Loss]
) -> Guide | None:
    """The frozen guide, if a loss needs one."""
    guided = [source for source in sources if losses[source.name].needs_guide]
    name = run.guide.model
    if not guided:
        if name is not None:
            raise ConfigError(
                f"guide.model={name!r} has no loss that takes a guide: set loss=cached_gist or guide=none"
            )
        return None
    assert name is not None  # make_losses has looked
    with errors_under("guide", asdict(run.guide)):
        encoder = build_encoder(
            str(resolve_directory(name, field="guide.model", revision=run.guide.revision)),
            max_length=run.guide.max_length,
            prompts=run.guide.prompts,
            trust_remote_code=run.guide.trust_remote_code,
        )
    if run.guide.mode == "live":
        return LiveGuide(encoder)
    for source in guided:
        check_stored_guide(source)
    return StoredGuide(
        encoder,
        guided,
        store_dir=run.guide.store_dir,
        store_dtype=run.guide.store_dtype,
        fill=FillSettings(chunk_tokens=guide_chunk_tokens(run, world, encoder.tokenizer)),
    )


def make_losses(run: RunConfig, sources: Sequence[Source], *, guided: bool) -> dict[str, Loss]:
    """The loss of each source: one for all, or one per source name; checked against the columns."""
    if "_target_" in run.loss:
        names = (*(source.name for source in sources), MIXED)
        losses: dict[str, Loss] = dict.fromkeys(names, instantiate(run.loss))
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


def make_data(
    run: RunConfig,
    world: World,
    sources: Sequence[Source],
    encoder: Encoder,
    guide: Guide | None,
) -> BatchModule:
    """The batches of the run."""
    tokens_of = guide.tokenizer if guide else None
    collator = Collator(
        tokenizer=encoder.tokenizer,
        chunk_rows=run.gradcache.chunk_size,
        chunk_tokens=run.gradcache.chunk_tokens,  # type: ignore[arg-type]
        prompts=encoder.role_prompts,
        guide_tokenizer=tokens_of,
        guide_chunk_tokens=guide_chunk_tokens(run, world, tokens_of) if tokens_of else None,
        guide_prompts=guide.prompts if guide else None,
    )
    return BatchModule(
        sources,
        sampler=instantiate(run.sampler),
        collator=collator,
        global_batch_size=run.global_batch_size,
        seed=run.seed,
        drop_last=run.drop_last,
        accumulate=run.accumulate,
        one_loss="_target_" in run.loss,
        loader=LoaderSettings(
            num_workers=num_workers(run, world), prefetch=run.data.loader.prefetch
        ),
    )


@rank_zero_only
def write_report(
    sources: Sequence[Source],
    data: BatchModule,
    encoder: Encoder,
    losses: Mapping[str, Loss],
    output_dir: Path,
) -> None:
    """Look at the data, write `data_report.*`, and print what a person should know."""
    plan = data.plan(0)
    report = build_report(
        sources,
        tokenizer=encoder.tokenizer,
        prompts=encoder.role_prompts,
        in_batch=[name for name, loss in losses.items() if loss.scope == "candidates"],
        guided=[name for name, loss in losses.items() if loss.needs_guide],
        duplicate_share=lambda source: duplicate_share(
            source.text_hashes(), plan, source=source.name
        ),
        unplaced=plan.unplaced,
    )
    write(report, output_dir)
    console = make_console()
    for line in report.warnings:
        print_plain(f"data  {line}", console=console)


def make_module(
    run: RunConfig,
    encoder: Encoder,
    losses: Mapping[str, Loss],
    guide: Guide | None,
    strategy: Strategy,
) -> BiEncoderModule:
    """The LightningModule."""
    return BiEncoderModule(
        encoder=encoder,
        losses=losses,
        strategy=strategy,
        optimizer=instantiate(run.optimizer),
        schedule=instantiate(run.schedule),
        guide=guide,
        settings=StepSettings(
            gather=run.gather,  # type: ignore[arg-type]
            keep_gib=run.gradcache.keep_gib,  # type: ignore[arg-type]
            accumulate=run.accumulate,
            clip_norm=run.clip_norm,
            learning_rate_mapping=run.learning_rate_mapping,
            compile=run.compile,
            seed=run.seed,
        ),
    )


def run_rows(
    run: RunConfig,
    world: World,
    sources: Sequence[Source],
    encoder: Encoder,
    losses: Mapping[str, Loss],
    plan: MemoryPlan,
) -> dict[str, dict[str, str]]:
    """What the table before step 1 says."""
    local = rows_per_rank(run.global_batch_size, world.size)
    cache = run.gradcache
    limits = [(cache.chunk_size, "texts"), (cache.chunk_tokens, "tokens")]
    chunk = ", ".join(f"at most {most} {of}" for most, of in limits if most) or "whole batch"
    keep = "all graphs kept" if cache.keep_gib is None else f"{cache.keep_gib:g} GiB of graphs kept"
    described = encoder.describe()
    return {
        "data": {s.name: f"{s.num_rows:,} rows: {', '.join(s.columns)}" for s in sources},
        "encoder": {
            "model": f"{described['transformer']} ({described['base_model'] or 'random weights'})",
            "embedding": f"{described['output_dimension']} dimensions, "
            f"{'+'.join(described['pooling'])} pooling",
            "max length": f"{described['max_seq_length']} tokens",
            "attention": described["attention"],
        },
        "batch": {
            "global": f"{run.global_batch_size:,} rows, {local:,} per rank",
            "optimizer step": f"{run.accumulate} global batches"
            if run.accumulate > 1
            else "one global batch",
            "chunk": f"{chunk}; {keep}",
            "estimated memory": plan.memory.describe(),
        },
        "loss": {
            name: json.dumps({type(loss).__name__: asdict(loss)}, default=str)  # type: ignore[call-overload]
            for name, loss in losses.items()
            if name != MIXED
        },
        "guide": _guide_rows(run, losses),
    }


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
        "model": str(run.guide.model),
        "embeddings": where if run.guide.mode == "stored" else "of every batch anew",
    }
