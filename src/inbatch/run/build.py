"""Builds the parts of a run from a checked configuration: data, encoder, losses, guide, module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from inbatch.config.check import RunConfig
from inbatch.config.instantiate import instantiate
from inbatch.config.schema import DataConfig, GuideConfig
from inbatch.config.targets import errors_under
from inbatch.data.collate import MIXED, Collator
from inbatch.data.sources.load import Source, load_sources
from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.resolve import resolve_directory
from inbatch.errors import ConfigError
from inbatch.evaluation.base import follow_model
from inbatch.guide import Guide, LiveGuide, StoredGuide
from inbatch.guide.fill import FillSettings
from inbatch.losses.base import Loss
from inbatch.run.auto_sizes import guide_chunk_tokens, num_workers
from inbatch.run.compatibility import (
    check_loss,
    check_parts,
    check_stored_guide,
)
from inbatch.run.datamodule import BatchModule, LoaderSettings
from inbatch.run.forms import formed
from inbatch.run.guide_portions import guide_portions
from inbatch.run.module import BiEncoderModule
from inbatch.run.parts import OwnObjects, Parts
from inbatch.run.resume import Saved
from inbatch.run.strategy_checks import check_average
from inbatch.run.token_checks import check_tokens, texts_of
from inbatch.step.settings import StepSettings
from inbatch.strategies import World

SCALED_STEPS = 50  # halvings of a loss scale of 2 ** 16, and some more


def build_parts(run: RunConfig, world: World, own: OwnObjects) -> Parts:
    """Load the data and build everything that the run is made of.

    Raises:
        ConfigError: a file, model or value that cannot be used.
    """
    generate_data(run.data)
    sources = load_sources(run.data.train, cache_dir=run.data.cache_dir, tables=own.tables)
    evaluators = {
        name: own.evaluators[name] if name in own.evaluators else instantiate(node)
        for name, node in run.evaluation.evaluators.items()
    }
    encoder = own.encoder or make_encoder(run.encoder, sources)
    check_tokens(encoder, sources, key="encoder.model")
    follow_model(evaluators.values(), encoder.similarity)
    mixed = bool(run.sampler.get("mixed"))
    guided = run.guide.model is not None
    sources, losses = make_losses(own.loss or run.loss, sources, guided=guided, mixed=mixed)
    parts = Parts(
        sources=sources,
        batch_sizes=batch_sizes(run.global_batch_size, run.sampler.get("batch_sizes"), sources),
        evaluators=evaluators,
        encoder=encoder,
        losses=losses,
        sampler=own.sampler or instantiate(run.sampler),
        guide=make_guide(run.guide, sources, losses, accelerator=world.accelerator),
        strategy=instantiate(run.strategy).resolve(world.size),
    )
    check_parts(
        parts,
        world,
        precision=run.precision,
        gather=run.gather,
        on_nonfinite=run.on_nonfinite,
        mixed=mixed,
        drop_last=run.drop_last,
    )
    if run.ema.decay is not None:
        check_average(parts, run.precision)
    return parts


def batch_sizes(
    global_batch_size: int, by_source: Mapping[str, int] | None, sources: Sequence[Source]
) -> dict[str, int]:
    """Rows of a global batch by source; `by_source` has the sizes that differ from `global_batch_size`."""
    own = by_source or {}
    return {source.name: own.get(source.name, global_batch_size) for source in sources}


def generate_data(data: DataConfig) -> None:
    """Write the data that a generator makes, see `DataConfig.generate`."""
    if data.generate is not None:
        instantiate(data.generate, key="data.generate")


def make_encoder(node: Any, sources: Sequence[Source]) -> Encoder:
    """The encoder to train; its tokenizer may be learned from the training texts."""
    return instantiate(node, key="encoder", texts=partial(_texts, sources))


def make_guide(
    guide: GuideConfig, sources: Sequence[Source], losses: Mapping[str, Loss], *, accelerator: str
) -> Guide | None:
    """The frozen guide, or None if no loss needs one.

    Raises:
        ConfigError: a guide is configured and no loss takes one, or the guide cannot be used.
    """
    guided = [source for source in sources if losses[source.name].needs_guide]
    name = guide.model
    if not guided:
        if name is not None:
            raise ConfigError(
                "guide.model",
                "has no loss that takes a guide",
                "set loss=cached_gist without loss.self_guided, or another loss with a guide, or guide=none",
                value=name,
            )
        return None
    assert name is not None  # make_losses has refused that
    with errors_under("guide", asdict(guide)):
        encoder = build_encoder(
            str(resolve_directory(name, field="guide.model", revision=guide.revision)),
            max_length=guide.max_length,
            prompts=guide.prompts,
            trust_remote_code=guide.trust_remote_code,
        )
    check_tokens(encoder, guided, key="guide.model")
    if guide.mode == "live":
        return LiveGuide(encoder)
    for source in guided:
        check_stored_guide(source)
    chunk_tokens = guide_chunk_tokens(guide.chunk_tokens, encoder, accelerator)
    return StoredGuide(
        encoder,
        guided,
        store_dir=guide.store_dir,
        store_dtype=guide.store_dtype,
        fill=FillSettings(chunk_tokens=chunk_tokens),
    )


def make_losses(
    node: Any, sources: Sequence[Source], *, guided: bool, mixed: bool
) -> tuple[list[Source], dict[str, Loss]]:
    """The sources in the form that their losses take, and the loss of each, checked against its columns.

    Args:
        node: a loss or its `_target_` node for all sources, or these by source name.
        sources: of the run, as loaded.
        guided: whether the run has a guide.
        mixed: whether a batch holds rows of all sources.

    Raises:
        ConfigError: a source has no loss, or one that does not fit its rows.
    """
    if is_one_loss(node):
        names = (*(source.name for source in sources), MIXED)
        losses: dict[str, Loss] = dict.fromkeys(names, _made(node))
    else:
        losses = {str(name): _made(each) for name, each in node.items()}
    for source in sources:
        if source.name not in losses:
            raise ConfigError(
                "loss",
                f"has no entry for source {source.name!r}",
                f"add loss.{source.name}, or set one loss for all sources",
            )
    sources = formed(sources, losses, mixed=mixed)
    for source in sources:
        check_loss(losses[source.name], source, guided=guided)
    lists = {source.name: source.is_ragged for source in sources}
    lists[MIXED] = any(lists.values())  # a batch of several sources
    settled = {name: loss.settled(lists=lists.get(name, False)) for name, loss in losses.items()}
    return sources, settled


def _made(node: Any) -> Any:
    """The object of a `_target_` node; an object stays what it is."""
    return instantiate(node) if isinstance(node, Mapping) else node


def is_one_loss(node: Any) -> bool:
    """True if all sources share one loss; otherwise `node` has a loss for each source name."""
    return not isinstance(node, Mapping) or "_target_" in node


def make_data(
    run: RunConfig, world: World, parts: Parts, saved: Saved | None = None
) -> BatchModule:
    """The batches of the run, as its sampler plans them.

    Raises:
        ConfigError: `saved`, the checkpoint that the run resumes from, is of another plan.
    """
    encoder, guide = parts.encoder, parts.guide
    live = guide.encoder if isinstance(guide, LiveGuide) else None
    collator = Collator(
        tokenizer=encoder.tokenizer,
        chunk_rows=run.gradcache.chunk_size,
        chunk_tokens=run.gradcache.chunk_tokens,  # type: ignore[arg-type]
        prompts=encoder.role_prompts,
        guide_tokenizer=None if live is None else live.tokenizer,
        guide_chunk_tokens=None
        if live is None
        else guide_chunk_tokens(run.guide.chunk_tokens, live, world.accelerator),
        guide_prompts=guide.prompts if guide else None,
    )
    data = BatchModule(
        parts.sources,
        sampler=parts.sampler,
        collator=collator,
        global_batch_size=run.global_batch_size,
        seed=run.seed,
        drop_last=run.drop_last,
        accumulate=run.accumulate,
        one_loss=is_one_loss(run.loss),
        loader=LoaderSettings(
            num_workers=num_workers(run.data.loader.num_workers, world),
            prefetch=run.data.loader.prefetch,
        ),
    )
    if isinstance(guide, StoredGuide):
        portions = guide_portions(run.trainer, world, parts, data, accumulate=run.accumulate)
        guide.expect(portions)
    if saved is not None and saved.entries is not None:
        data.check_checkpoint(saved.entries)
    return data


def make_module(run: RunConfig, parts: Parts) -> BiEncoderModule:
    """The LightningModule."""
    return BiEncoderModule(
        encoder=parts.encoder,
        losses=parts.losses,
        strategy=parts.strategy,
        optimizer=instantiate(run.optimizer),
        schedule=instantiate(run.schedule),
        guide=parts.guide,
        settings=StepSettings(
            gather=run.gather,
            keep_gib=run.gradcache.keep_gib,  # type: ignore[arg-type]
            accumulate=run.accumulate,
            clip_norm=run.clip_norm,
            learning_rate_mapping=run.learning_rate_mapping,
            compile=run.compile,
            seed=run.seed,
            on_nonfinite=run.on_nonfinite,
            tolerated=SCALED_STEPS if run.precision == "fp16" else 0,
        ),
    )


def _texts(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        for start in range(0, source.num_rows, 4096):
            rows = np.arange(start, min(start + 4096, source.num_rows))
            yield from texts_of(source, rows)
