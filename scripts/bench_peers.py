"""sentence-transformers' samplers and ours over the same strings, for bench_data.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sized
from functools import partial

import numpy as np

from bench_synthetic import synthetic_hashes
from inbatch.data.plan.plan import SourceInfo
from inbatch.data.plan.samplers import NoDuplicates

Timing = tuple[float, float, float, list[int]]  # hashing, first batch, epoch, in CPU s; batch sizes


def peer_table(args: argparse.Namespace) -> None:
    """sentence-transformers' samplers and ours over the same texts."""
    print(
        f"\nWhole epochs of strings, batch {args.peer_batch:,}, drop_last, "
        f"{args.duplicates:.0%} of the texts repeated, {args.hot:.0%} of the rows with one query\n"
    )
    print(
        "| rows | sampler | hashing CPU s | first batch CPU s | epoch CPU s | full batches | rows in them |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, run in RUNS.items():
        for rows in args.peer_rows:
            measure(name, run, rows, args)
        if args.peer_s:
            grow(name, run, args)


def grow(name: str, run: Callable[..., Timing], args: argparse.Namespace) -> None:
    """Epochs of more and more rows, up to the last that is likely to stay below the limit."""
    rows = min(10_000, args.rows)
    while True:
        spent = measure(name, run, rows, args)
        if rows == args.rows or spent * 3 > args.peer_s:
            return
        rows = min(3 * rows, args.rows)


def measure(name: str, run: Callable[..., Timing], rows: int, args: argparse.Namespace) -> float:
    """Print a line; returns CPU seconds."""
    shape = {"columns": args.columns, "num_rows": rows, "hot": args.hot}
    numbers = synthetic_hashes(np.arange(rows), duplicates=args.duplicates, **shape)
    columns = [[f"text {n:020d} of a row" for n in column.tolist()] for column in numbers]
    hashing, first, whole, sizes = run(columns, args.peer_batch)
    full = sum(size == args.peer_batch for size in sizes)
    print(
        f"| {rows:,} | {name} | {hashing:.2f} | {first:.2f} | {whole:.2f} "
        f"| {full} | {sum(sizes):,} |",
        flush=True,
    )
    return hashing + whole


def cpu_seconds() -> float:
    """Of this process and its children; steadier than wall time on a shared machine."""
    return sum(os.times()[:4])


def time_epoch(hashing: float, begin: float, batches: Iterator[Sized]) -> Timing:
    sizes = [len(next(batches))]
    first = cpu_seconds() - begin
    sizes += [len(batch) for batch in batches]
    return hashing, first, cpu_seconds() - begin, sizes


def run_ours(columns: list[list[str]], batch: int) -> Timing:
    from inbatch.data.hashing import hash_texts

    begin = cpu_seconds()
    hashes = np.stack([hash_texts(column) for column in columns])
    hashed = cpu_seconds()
    info = SourceInfo("texts", hashes.shape[1], lambda: hashes)
    plan = NoDuplicates().plan([info], global_batch_size=batch, seed=0, epoch=0, drop_last=True)
    return time_epoch(hashed - begin, hashed, (batch.rows for batch in plan))


def run_peer(columns: list[list[str]], batch: int, *, hashed: bool = False) -> Timing:
    import torch
    from datasets import Dataset, disable_progress_bars
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    disable_progress_bars()
    names = ["anchor", "positive", *(f"negative_{i}" for i in range(1, len(columns) - 1))]
    sampler = NoDuplicatesBatchSampler(
        Dataset.from_dict(dict(zip(names, columns))),
        batch_size=batch,
        drop_last=True,
        valid_label_columns=[],
        generator=torch.Generator(),
        seed=0,
        precompute_hashes=hashed,
        precompute_num_proc=1 if hashed else None,
    )
    begin = cpu_seconds()
    sampler._build_hashes()
    ready = cpu_seconds()
    return time_epoch(ready - begin, ready, iter(sampler))


RUNS: dict[str, Callable[..., Timing]] = {
    "inbatch no_duplicates": run_ours,
    "NO_DUPLICATES_HASHED": partial(run_peer, hashed=True),
    "NO_DUPLICATES": run_peer,
}
