"""Rows with lists and plain rows in one batch, on any ranks, give the update of one process with all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.distributed import run
from helpers.keystone import LR, STRATEGIES, fit, make_encoder, quiet, relative_error
from helpers.ragged_batches import Rows, flat_texts, make_rows, union_input
from helpers.tiny import tiny_texts
from inbatch.batch.batch import Batch
from inbatch.batch.chunks import make_chunks
from inbatch.data.collate import MIXED, BatchDataset, Collator, check_mixable
from inbatch.data.plan.plan import GlobalBatch, Plan
from inbatch.data.plan.rank_feed import RankFeed
from inbatch.data.plan.samplers import NoDuplicates, Proportional
from inbatch.data.sources.source import Source
from inbatch.encoder import Encoder
from inbatch.losses import MultipleNegativesRanking
from inbatch.optim import Constant
from inbatch.run.datamodule import source_info
from inbatch.run.forms import formed
from inbatch.run.module import BiEncoderModule
from inbatch.step.settings import StepSettings
from inbatch.strategies import SingleDevice

LOSS = MultipleNegativesRanking(mask_duplicates=True)
LISTS = make_rows(14)
# The last plain rows have the positives of rows with lists.
COLUMNS = [tiny_texts(11, seed=seed, min_words=3) for seed in (7, 8, 9, 10)]
COLUMNS[1][-2:] = [LISTS[0][1][0], LISTS[5][1][0]]
PLAIN: Rows = [(q, [p], [n, m]) for q, p, n, m in zip(*COLUMNS, strict=True)]


def make_sources() -> list[Source]:
    names = ("query", "positive", "negative_1", "negative_2")
    plain = Source.from_columns("plain", dict(zip(names, COLUMNS, strict=True)))
    lists = dict(zip(("query", "pos", "neg"), zip(*LISTS), strict=True))
    sources = [plain, Source.from_columns("lists", lists)]
    made = formed(sources, {source.name: LOSS for source in sources}, mixed=True)
    check_mixable(made, one_loss=True)
    return made


def plan_of(sources: list[Source], number: int) -> Plan:
    infos = [source_info(source) for source in sources]
    sampler = Proportional(within=NoDuplicates(), mixed=True)
    return sampler.plan(infos, global_batch_size=7, seed=3, epoch=number, drop_last=False)


def batches_of(encoder: Encoder, rank: int, world_size: int, *, resume_at: int = 0) -> list[Batch]:
    """A rank's slices of an epoch."""
    sources = make_sources()
    assert all(source.ragged is not None for source in sources)

    def document_counts(batch: GlobalBatch) -> np.ndarray:
        assert batch.sources is not None
        pairs = zip(batch.sources.tolist(), batch.rows.tolist())
        rows = [[LISTS, PLAIN][sources[s].name == "plain"][row] for s, row in pairs]
        return np.array([len(p) + len(n) for _, p, n in rows])

    feed = RankFeed(
        lambda number: plan_of(sources, number),
        rank=rank,
        world_size=world_size,
        document_counts=document_counts,
    )
    if resume_at:
        feed.resume({"epoch": 0, "step": resume_at, "plan": 0, "plan_step": resume_at})
    feed.set_epoch(0)
    dataset = BatchDataset(sources, Collator(tokenizer=encoder.tokenizer, chunk_rows=5), seed=3)
    return [dataset[item] for item in feed]


def rows_of_batch(batch: GlobalBatch) -> Rows:
    assert batch.sources is not None
    return [(PLAIN, LISTS)[s][row] for s, row in zip(batch.sources.tolist(), batch.rows.tolist())]


def _train(rank: int, world_size: int, path: Path, options: dict[str, Any]) -> Any:
    quiet()
    encoder = make_encoder(path, torch.float64)
    batches = batches_of(encoder, rank, world_size)
    module = BiEncoderModule(
        encoder=encoder,
        losses={MIXED: LOSS},
        strategy=SingleDevice() if world_size == 1 else STRATEGIES["ddp"],
        optimizer=lambda groups: torch.optim.SGD(groups, lr=LR),
        schedule=Constant(),
        guide=None,
        settings=StepSettings(clip_norm=None, **options),
    )
    fit(module, batches, world_size)
    return {name: p.detach().clone() for name, p in encoder.named_parameters()}


def _reference(path: Path) -> dict[str, torch.Tensor]:
    """Parameters after ordinary backwards on the global batches, from the rows as they were written."""
    encoder = make_encoder(path, torch.float64)
    for batch in plan_of(make_sources(), 0):
        rows = rows_of_batch(batch)
        ids, prompt = encoder.tokenizer(texts := flat_texts(rows), "")
        lengths = [prompt] * len(texts)
        (chunk,) = make_chunks(ids, lengths, chunk_rows=None, chunk_tokens=None, pad_id=0)
        encoder.zero_grad()
        LOSS(union_input(rows, encoder(chunk)[torch.argsort(chunk.index)])).loss.backward()
        with torch.no_grad():
            for parameter in encoder.parameters():
                if parameter.grad is not None:
                    parameter -= LR * parameter.grad
    return {name: p.detach().clone() for name, p in encoder.named_parameters()}


def test_every_batch_is_about_both() -> None:
    batches = list(plan_of(make_sources(), 0))
    assert len(batches) == 4
    assert all(len({*batch.sources.tolist()}) == 2 for batch in batches[:3])  # type: ignore[union-attr]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_update_equals_the_union_batch(tiny_bert: Path, world_size: int) -> None:
    start = {n: p.detach() for n, p in make_encoder(tiny_bert, torch.float64).named_parameters()}
    found = run(_train, world_size, tiny_bert, {"keep_gib": 0} if world_size == 3 else {})[0]
    assert relative_error(found, _reference(tiny_bert), start) < 1e-10


def test_a_resumed_run_has_the_same_batches(tiny_bert: Path) -> None:
    encoder = make_encoder(tiny_bert, torch.float64)
    whole, resumed = batches_of(encoder, 1, 2), batches_of(encoder, 1, 2, resume_at=2)
    assert [batch.text_ids.tolist() for batch in resumed] == [
        batch.text_ids.tolist() for batch in whole[2:]
    ]
    assert all(batch.documents.of_ranks for batch in resumed)  # type: ignore[union-attr]
