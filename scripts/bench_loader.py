"""The loader alone, for bench_data.py: texts or stored tokens -> batches, by number of workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import DataLoader

from bench_texts import make_triplets
from inbatch.batch.transfer import PackedBatch, pack
from inbatch.data.collate import BatchDataset, Collator
from inbatch.data.plan.rank_feed import RankFeed
from inbatch.data.plan.samplers import NoDuplicates
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.encoder.tokenize import TextTokenizer, train_wordpiece
from inbatch.run.datamodule import describe_tokenizer, source_info


def loader_table(rows: int, *, batch: int, workers: Sequence[int], folder: Path) -> None:
    """Print rows/s and tokens/s of raw files, prepared texts and prepared tokens."""
    columns = make_triplets(rows)
    path = folder / "triplets.parquet"
    pq.write_table(pa.table(columns), path)
    words = (text for column in columns.values() for text in column[:2000])
    hf = train_wordpiece(words, {"vocab_size": 2000})
    collator = Collator(tokenizer=TextTokenizer(hf, max_length=64), chunk_tokens=8192)
    [raw] = load_sources({"raw": str(path)}, cache_dir=str(folder / "cache"))
    sources = {"files": raw}
    for name, tokenize in (("prepared", False), ("prepared, tokens stored", True)):
        began = time.perf_counter()
        sources[name] = prepare(raw, folder / name, collator, tokenize=tokenize)
        seconds = time.perf_counter() - began
        print(f"{name}: {rows / seconds:,.0f} rows/s to write\n")
    print(f"Loader of {rows:,} triplets, batches of {batch:,} rows, chunks of 8,192 tokens\n")
    print("| source | workers | rows/s | tokens/s | start s |\n|---|---|---|---|---|")
    for name, source in sources.items():
        for number in workers:
            rows_s, tokens_s, start = measure(source, collator, batch=batch, workers=number)
            print(
                f"| {name} | {number} | {rows_s:,.0f} | {tokens_s:,.0f} | {start:.1f} |", flush=True
            )


def prepare(source: Source, folder: Path, collator: Collator, *, tokenize: bool) -> Source:
    """The same rows as shards."""
    tokens = describe_tokenizer(collator.tokenizer, collator.column_prompts(source))
    job = ShardJob(
        source=source,
        folder=folder,
        shard_rows=1 << 16,
        tokenize=collator.tokenizer if tokenize else None,
        tokens=tokens if tokenize else None,
    )
    for _ in write_shards(job, open_job(job), workers=1):
        pass
    finish_job(job, versions={})
    [prepared] = load_sources({source.name: str(folder)})
    return prepared


def measure(
    source: Source, collator: Collator, *, batch: int, workers: int
) -> tuple[float, float, float]:
    """Rows/s and tokens/s after the first batch, and seconds until that."""
    feed = RankFeed(
        lambda epoch: NoDuplicates().plan(
            [source_info(source)], global_batch_size=batch, seed=0, epoch=epoch, drop_last=True
        ),
        rank=0,
        world_size=1,
    )
    loader: DataLoader[PackedBatch] = DataLoader(
        BatchDataset([source], collator),
        sampler=feed,
        batch_size=None,
        collate_fn=pack,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    began = time.perf_counter()
    batches = iter(loader)
    # Those that workers have ready at the start are not counted.
    for _ in range(1 + 2 * workers):
        next(batches)
    start = time.perf_counter()
    opened = (each.open("cpu") for each in batches)
    counts = [(each.num_rows, each.num_tokens) for each in opened]
    seconds = time.perf_counter() - start
    return sum(n for n, _ in counts) / seconds, sum(n for _, n in counts) / seconds, start - began
