"""Looks at training data as a run would see them, without one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from inbatch.data.inspection.advice import advise
from inbatch.data.inspection.overlap import overlaps
from inbatch.data.inspection.roles import roles_of
from inbatch.data.inspection.samplers import Configured, compare_samplers
from inbatch.data.inspection.scripts import script_shares
from inbatch.data.inspection.seen import seen_rows
from inbatch.data.inspection.texts import texts_of_rows
from inbatch.data.inspection.values import Inspection, Place, SamplerFacts, SourceFacts
from inbatch.data.plan.plan import SourceInfo, duplicate_share
from inbatch.data.report.build import TokenCounter, build_report
from inbatch.data.sources.source import Source
from inbatch.data.sources.views import ColumnsOfLists
from inbatch.losses.base import Loss

SAMPLE_ROWS = 1000  # whose tokens and letters are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What reads the texts.

    tokenizer: the encoder's; None counts characters only.
    name: of the encoder.
    prompts: of the encoder.
    """

    tokenizer: TokenCounter | None = None
    name: str | None = None
    prompts: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How rows become batches, as configured.

    sampler: with the plan of its first epoch.
    """

    sampler: Configured
    global_batch_size: int
    seed: int
    drop_last: bool


def examine(
    sources: Sequence[Source],
    infos: Sequence[SourceInfo],
    *,
    columns: Mapping[str, Mapping[str, object] | None],
    losses: Mapping[str, Loss],
    reader: Reader,
    batches: Batches,
    num_rows: int,
) -> Inspection:
    """Look at every source.

    Args:
        sources: from `load_sources`.
        infos: the same as samplers see them.
        columns: roles that the configuration names, by source.
        losses: by source.
        reader: tokenizer and prompts of the encoder.
        batches: as configured.
        num_rows: rows of each source to show.
    """
    in_batch = [
        source
        for source in sources
        if losses[source.name].scope == "candidates" and not losses[source.name].needs_labels
    ]
    guided = tuple(source.name for source in sources if losses[source.name].filters_by_guide)
    masked = tuple(source.name for source in sources if losses[source.name].needs_text_ids)
    plan = batches.sampler.plan
    report = build_report(
        sources,
        tokenizer=reader.tokenizer,
        prompts=reader.prompts,
        in_batch=[source.name for source in in_batch],
        guided=guided,
        losses=losses,
        duplicate_share=lambda source: duplicate_share(
            source.text_hashes() if source.ragged is None else source.ragged.conflict_hashes(),
            plan,
            source=source.name,
        ),
        masked=masked,
        plans={batches.sampler.name: plan},
        skipped=plan.skipped,
        sample_rows=SAMPLE_ROWS,
    )
    samplers: tuple[SamplerFacts, ...] = ()
    # Labels say which pairs match, and the losses on them take no other rows for negatives.
    contrasted = [source.name for source in in_batch if not source.has_labels]
    if contrasted:
        samplers = compare_samplers(
            sources,
            infos,
            contrasted=contrasted,
            configured=batches.sampler,
            global_batch_size=batches.global_batch_size,
            seed=batches.seed,
            drop_last=batches.drop_last,
        )
    facts = tuple(
        _source_facts(
            source,
            columns=columns.get(source.name),
            reader=reader,
            seed=batches.seed,
            num_rows=num_rows,
        )
        for source in sources
    )
    return Inspection(
        report=report,
        sources=facts,
        global_batch_size=batches.global_batch_size,
        samplers=samplers,
        masked=masked,
        guided=guided,
        encoder=reader.name,
        advice=advise(
            report.sources,
            samplers,
            guided=guided,
            global_batch_size=batches.global_batch_size,
        ),
    )


def place_of(source: Source) -> Place:
    """Where the rows of a source are."""
    files = () if source.files is None else source.files.paths
    kind = ""
    if source.files is not None:
        kind = source.files.suffix[1:] + (", streamed" if source.streamed is not None else "")
    elif source.is_prepared:
        kind = "prepared folder"
    sizes = [Path(path).stat().st_size for path in files if Path(path).is_file()]
    num_bytes = sum(sizes) if files and len(sizes) == len(files) else None
    return Place(source.origin, kind, files, num_bytes)


def _source_facts(
    source: Source,
    *,
    columns: Mapping[str, object] | None,
    reader: Reader,
    seed: int,
    num_rows: int,
) -> SourceFacts:
    sample = np.unique(np.linspace(0, source.num_near_rows - 1, SAMPLE_ROWS).astype(np.int64))
    by_column: defaultdict[str, list[str]] = defaultdict(list)
    for text in chain.from_iterable(texts_of_rows(source, sample, reader.prompts)):
        by_column[text.column].append(text.text)
    view = source.stored if isinstance(source.stored, ColumnsOfLists) else None
    return SourceFacts(
        name=source.name,
        place=place_of(source),
        roles=roles_of(
            source.roles,
            columns,
            field=source.field,
            prepared=source.is_prepared,
            stored=None if view is None else view.source.roles,
        ),
        overlaps=overlaps(source),
        scripts={name: script_shares(texts) for name, texts in by_column.items()},
        rows=seen_rows(
            source,
            count=num_rows,
            seed=seed,
            tokenizer=reader.tokenizer,
            prompts=reader.prompts,
        ),
    )
