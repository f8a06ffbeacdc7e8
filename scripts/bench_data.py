"""Time and memory of batch plans, beside sentence-transformers' samplers; prints markdown tables.

    python scripts/bench_data.py --rows 100000000 --columns 2 --duplicates 0.2 --batch 32768
    python scripts/bench_data.py --rows 1000000 --peer-rows 100000 --peer-batch 1024

Plans run on synthetic 64-bit hashes in a memory-mapped file, each in a fresh process that reports its own
peak memory. Duplicates are looked for apart from the sampler, by sorting all values of a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sized
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from inbatch.data.permutation import KeyedPermutation, ShuffledRange, keyed_hash
from inbatch.data.plan import Sampler, SourceInfo
from inbatch.data.samplers import NoDuplicates, Shuffled

GIB = 1 << 30
Timing = tuple[float, float, float, list[int]]  # hashing, first batch, epoch, in CPU s; batch sizes


def main() -> None:
    args = parse_args()
    if args.measure:
        print(json.dumps(measure_plan(args)))
        return
    print(f"{platform.machine()}, numpy {np.__version__}, one process\n")
    mixing_table(min(args.rows, 1 << 20))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "hashes.npy"
        write_hashes(path, args)
        plan_table(path, args)
    if args.peer_rows:
        peer_table(args)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rows", type=int, default=1_000_000)
    add("--columns", type=int, default=2)
    add("--duplicates", type=float, default=0.2, help="share of texts that occur more than once")
    add("--hot", type=float, default=0.0, help="share of rows with one and the same query")
    add("--batch", type=int, default=4096, help="global batch size")
    add("--steps", type=int, default=256, help="steps to draw and to check")
    add("--folder", default=None, help="where to put the file of hashes")
    add("--peer-rows", type=int, nargs="*", default=[], help="rows for sentence-transformers")
    add("--peer-batch", type=int, default=1024)
    add("--measure", default=None, help=argparse.SUPPRESS)
    add("--block-rows", type=int, default=1, help=argparse.SUPPRESS)
    add("--sampler", default="no_duplicates", help=argparse.SUPPRESS)
    return parser.parse_args()


def synthetic_hashes(
    rows: np.ndarray, *, columns: int, num_rows: int, duplicates: float, hot: float = 0.0
) -> np.ndarray:
    """Hashes of some rows, uint64 [C, n]; a repeated text has about four copies, in any column."""
    out = np.empty((columns, len(rows)), dtype=np.uint64)
    num_repeated = max(1, int(num_rows * columns * duplicates / 4))
    for column in range(columns):
        cells = rows.astype(np.uint64) * np.uint64(columns) + np.uint64(column)
        dice = keyed_hash(cells, key=1)
        repeated = (dice >> np.uint64(11)).astype(np.float64) * 2.0**-53 < duplicates
        texts = np.where(repeated, keyed_hash(cells, key=2) % np.uint64(num_repeated), ~cells)
        out[column] = keyed_hash(texts, key=3)
    out[0, keyed_hash(rows.astype(np.uint64), key=4) < np.uint64(int(hot * (2**64 - 1)))] = 1
    return out


def write_hashes(path: Path, args: argparse.Namespace) -> None:
    array = np.lib.format.open_memmap(path, "w+", np.uint64, (args.columns, args.rows))
    shape = {"columns": args.columns, "num_rows": args.rows, "hot": args.hot}
    for start in range(0, args.rows, 1 << 20):
        rows = np.arange(start, min(start + (1 << 20), args.rows))
        array[:, rows] = synthetic_hashes(rows, duplicates=args.duplicates, **shape)
    array.flush()


def mixing_table(rows: int) -> None:
    """How well neighbours part, beside numpy's shuffle of an array."""
    positions = np.arange(rows)
    orders: dict[str, Callable[[int], np.ndarray]] = {
        "`numpy.random` permutation": np.random.default_rng(0).permutation,
        "`KeyedPermutation`": lambda n: KeyedPermutation(n, 1)(positions),
        "`ShuffledRange`, blocks of 64": lambda n: ShuffledRange(n, 1, 64).slice(0, n),
    }
    print(
        f"Order of {rows:,} rows; a true shuffle has distance 0.3333 and correlation 0 +- {rows**-0.5:.4f}\n"
    )
    print("| order | distance of neighbours / rows | correlation of neighbours | million rows/s |")
    print("|---|---|---|---|")
    for name, order in orders.items():
        begin = time.process_time()
        out = order(rows)
        speed = rows / (time.process_time() - begin) / 1e6
        distance = np.abs(np.diff(out)).mean() / rows
        correlation = np.corrcoef(out[1:], out[:-1])[0, 1]
        print(f"| {name} | {distance:.4f} | {correlation:+.4f} | {speed:.0f} |")


def plan_table(path: Path, args: argparse.Namespace) -> None:
    print(
        f"\nPlans of {args.rows:,} rows, {args.columns} columns, {args.duplicates:.0%} of the texts repeated"
        f"{f', {args.hot:.0%} of the rows with one query' if args.hot else ''}, global batch {args.batch:,}\n"
    )
    print(
        "| sampler | steps | rows in no batch | start s (CPU s) | resume at 3/4 s | million rows/s (CPU) "
        "| steps checked | batches with a text twice | peak RSS GiB | of it private |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for sampler, block_rows in (("no_duplicates", 1), ("no_duplicates", 64), ("shuffled", 1)):
        command = [sys.executable, __file__, "--measure", str(path), "--sampler", sampler]
        command += [
            "--block-rows",
            str(block_rows),
            "--batch",
            str(args.batch),
            "--steps",
            str(args.steps),
        ]
        out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        name = sampler if block_rows == 1 else f"{sampler}, block_rows={block_rows}"
        print(
            f"| {name} | {out['steps']:,} | {out['unplaced']:,} "
            f"| {out['start_s']:.1f} ({out['start_cpu_s']:.1f}) | {out['resume_s']:.2f} "
            f"| {out['rows_per_s'] / 1e6:.1f} ({out['rows_per_cpu_s'] / 1e6:.1f}) "
            f"| {out['checked']} | {out['with_duplicates']} "
            f"| {out['rss_gib']:.2f} | {out['private_gib']:.2f} |"
        )


def measure_plan(args: argparse.Namespace) -> dict[str, Any]:
    """Plan over a file of hashes in this process."""
    hashes = np.load(args.measure, mmap_mode="r")
    info = SourceInfo("synthetic", hashes.shape[1], lambda: hashes)
    kind = NoDuplicates if args.sampler == "no_duplicates" else Shuffled
    sampler: Sampler = kind(args.block_rows)
    memory = PeakMemory()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    plan = sampler.plan([info], global_batch_size=args.batch, seed=0, epoch=0, drop_last=True)
    start_s, start_cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu

    begin = time.perf_counter()
    plan.next({"epoch": 0, "step": plan.num_steps * 3 // 4})
    resume_s = time.perf_counter() - begin

    state, batches = plan.start(), []
    steps = min(args.steps, plan.num_steps)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        batch, state = plan.next(state)
        batches.append(batch.rows)
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    rss, private = memory.stop()
    with_duplicates = sum(holds_text_twice(hashes[:, rows]) for rows in batches)
    drawn = np.concatenate(batches)
    assert len(np.unique(drawn)) == len(drawn), "a row was drawn twice"
    return {
        "steps": plan.num_steps,
        "unplaced": plan.unplaced["synthetic"],
        "start_s": start_s,
        "start_cpu_s": start_cpu_s,
        "resume_s": resume_s,
        "rows_per_s": len(drawn) / wall_s,
        "rows_per_cpu_s": len(drawn) / cpu_s,
        "checked": steps,
        "with_duplicates": with_duplicates,
        "rss_gib": rss / GIB,
        "private_gib": private / GIB,
    }


def holds_text_twice(values: np.ndarray) -> bool:
    """Whether a value [C, n] occurs in two rows; a row's own repetitions are left out."""
    by_row = np.sort(values, axis=0)
    cells = [by_row[0]]
    for before, column in pairwise(by_row):
        cells.append(column[column != before])
    flat = np.concatenate(cells)
    return len(np.unique(flat)) < len(flat)


class PeakMemory:
    """Peak resident memory of this process, and of its private part, sampled every 20 ms."""

    def __init__(self) -> None:
        self._peak = [0, 0]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[int, int]:
        """Bytes: all (with mapped file pages), private."""
        self._done.set()
        self._thread.join()
        return self._peak[0], self._peak[1]

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            lines = dict(
                line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
            )
            now = [int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon")]
            self._peak = [max(pair) for pair in zip(self._peak, now)]


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
    for rows in args.peer_rows:
        shape = {"columns": args.columns, "num_rows": rows, "hot": args.hot}
        numbers = synthetic_hashes(np.arange(rows), duplicates=args.duplicates, **shape)
        columns = [[f"text {n:020d} of a row" for n in column.tolist()] for column in numbers]
        for name, run in RUNS.items():
            hashing, first, whole, sizes = run(columns, args.peer_batch)
            full = sum(size == args.peer_batch for size in sizes)
            print(
                f"| {rows:,} | {name} | {hashing:.2f} | {first:.2f} | {whole:.2f} "
                f"| {full} | {sum(sizes):,} |",
                flush=True,
            )


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

if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
