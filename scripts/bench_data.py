"""Time and memory of batch plans and loaders, beside sentence-transformers' samplers; prints markdown tables.

    python scripts/bench_data.py --rows 100000000 --columns 2 --duplicates 0.2 --batch 32768
    python scripts/bench_data.py --rows 100000000 --ragged --batch 32768
    python scripts/bench_data.py --rows 1000000 --peer-s 60 --peer-batch 1024
    python scripts/bench_data.py --rows 1000000 --loader-rows 50000 --workers 0 1 2

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench_synthetic import read_lists, synthetic_hashes, write_lists
from inbatch.data.plan.fingerprint import plan_fingerprint
from inbatch.data.plan.permutation import FilesRange, KeyedPermutation, ShuffledRange
from inbatch.data.plan.plan import Sampler, SourceInfo
from inbatch.data.plan.samplers import NoDuplicates, Shuffled
from inbatch.data.ragged import RaggedValues

GIB = 1 << 30


def main() -> None:
    args = parse_args()
    if args.measure:
        print(json.dumps(measure_plan(args)))
        return
    print(f"{platform.machine()}, numpy {np.__version__}, one process\n")
    mixing_table(min(args.rows, 1 << 20))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / ("lists" if args.ragged else "hashes.npy")
        write_hashes(path, args)
        plan_table(path, args)
        if args.loader_rows:
            from bench_loader import (
                loader_table,  # not above: its imports would count as memory of plans
            )

            loader_table(
                args.loader_rows,
                batch=args.loader_batch,
                workers=args.workers,
                folder=Path(folder),
            )
    if args.peer_rows or args.peer_s:
        from bench_peers import peer_table

        peer_table(args)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rows", type=int, default=1_000_000)
    add("--columns", type=int, default=2)
    add("--duplicates", type=float, default=0.2, help="share of texts that occur more than once")
    add(
        "--ragged",
        action="store_true",
        help="rows with 0 to 8 negatives, of which plans know nothing",
    )
    add(
        "--positives",
        type=int,
        default=1,
        help="most positives of ragged rows; each has 1 at least",
    )
    add("--hot", type=float, default=0.0, help="share of rows with one and the same query")
    add("--batch", type=int, default=4096, help="global batch size")
    add("--steps", type=int, default=256, help="steps to draw and to check")
    add("--folder", default=None, help="where to put the file of hashes")
    add("--peer-rows", type=int, nargs="*", default=[], help="rows for sentence-transformers")
    add("--peer-s", type=float, default=0, help="grow the rows until an epoch would take longer")
    add("--peer-batch", type=int, default=1024)
    add("--loader-rows", type=int, default=0, help="triplets to read and tokenize; 0 for none")
    add("--loader-batch", type=int, default=512)
    add("--workers", type=int, nargs="*", default=[0, 1, 2], help="of the loader")
    add("--measure", default=None, help=argparse.SUPPRESS)
    add("--block-rows", type=int, default=1, help=argparse.SUPPRESS)
    add("--sampler", default="no_duplicates", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_hashes(path: Path, args: argparse.Namespace) -> None:
    if args.ragged:
        path.mkdir()
        write_lists(
            path,
            args.rows,
            most_positives=args.positives,
            most_negatives=8,
            duplicates=args.duplicates,
        )
        return
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
        "`FilesRange`, 8 of 64 files at a time": lambda n: files_order(n, 64, 8),
        "`FilesRange`, 8 of 1,024 files at a time": lambda n: files_order(n, 1024, 8),
    }
    print(
        f"Order of {rows:,} rows; a true shuffle has distance 0.3333 and correlation 0 +- {rows**-0.5:.4f}\n"
    )
    print(
        "| order | distance of neighbours / rows | correlation of neighbours "
        "| neighbours of 4,096 rows that are within 1% | million rows/s |"
    )
    print("|---|---|---|---|---|")
    for name, order in orders.items():
        begin = time.process_time()
        out = order(rows)
        speed = rows / (time.process_time() - begin) / 1e6
        distance = np.abs(np.diff(out)).mean() / rows
        correlation = np.corrcoef(out[1:], out[:-1])[0, 1]
        near = near_share(out)
        print(f"| {name} | {distance:.4f} | {correlation:+.4f} | {near:.2%} | {speed:.0f} |")


def files_order(rows: int, files: int, buffer_files: int) -> np.ndarray:
    """Rows in files of unequal sizes, in the order of a streamed source."""
    ends = np.sort(np.random.default_rng(0).choice(np.arange(1, rows), files - 1, replace=False))
    sizes = np.diff(np.concatenate([[0], ends, [rows]]))
    return FilesRange(tuple(sizes.tolist()), 1, buffer_files).slice(0, rows)


def near_share(order: np.ndarray, *, batch: int = 4096) -> float:
    """Share of pairs of rows of a batch whose original positions differ by less than 1% of the rows."""
    shares = []
    for start in range(0, len(order) - batch + 1, batch):
        a = order[start : start + batch]
        shares.append((np.abs(a - np.roll(a, batch // 2)) < len(order) / 100).mean())
    return float(np.mean(shares))


def plan_table(path: Path, args: argparse.Namespace) -> None:
    texts = f"{args.columns} columns"
    if args.ragged:
        texts = f"lists of 1 to {args.positives} positives and 0 to 8 negatives"
    print(
        f"\nPlans of {args.rows:,} rows, {texts}, {args.duplicates:.0%} of the texts repeated"
        f"{f', {args.hot:.0%} of the rows with one query' if args.hot else ''}, global batch {args.batch:,}\n"
    )
    print(
        "| sampler | steps | rows in no batch | start s (CPU s) | digest s (CPU s) "
        "| resume at 3/4 s (CPU s) | million rows/s (CPU) | steps checked | batches with a text twice "
        "| peak RSS GiB | of it private |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
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
            f"| {name} | {out['steps']:,} | {out['skipped']:,} "
            f"| {out['start_s']:.1f} ({out['start_cpu_s']:.1f}) "
            f"| {out['digest_s']:.1f} ({out['digest_cpu_s']:.1f}) "
            f"| {out['resume_s']:.2f} ({out['resume_cpu_s']:.2f}) "
            f"| {out['rows_per_s'] / 1e6:.1f} ({out['rows_per_cpu_s'] / 1e6:.1f}) "
            f"| {out['checked']} | {out['with_duplicates']} "
            f"| {out['rss_gib']:.2f} | {out['private_gib']:.2f} |"
        )


def measure_plan(args: argparse.Namespace) -> dict[str, Any]:
    """Plan over a file of hashes in this process."""
    info = source_of(Path(args.measure))
    kind = NoDuplicates if args.sampler == "no_duplicates" else Shuffled
    sampler: Sampler = kind(args.block_rows)
    memory = PeakMemory()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    plan = sampler.plan([info], global_batch_size=args.batch, seed=0, epoch=0, drop_last=True)
    start_s, start_cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu

    begin, begin_cpu = time.perf_counter(), time.process_time()
    plan.batch(plan.num_steps * 3 // 4)
    resume_s, resume_cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu

    steps = min(args.steps, plan.num_steps)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    batches = [plan.batch(step).rows for step in range(steps)]
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    rss, private = memory.stop()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    plan_fingerprint([info], sampler, global_batch_size=args.batch, seed=0)
    digest_s, digest_cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    with_duplicates = sum(holds_text_twice(texts_of(info, rows)) for rows in batches)
    drawn = np.concatenate(batches)
    assert len(np.unique(drawn)) == len(drawn), "a row was drawn twice"
    return {
        "steps": plan.num_steps,
        "skipped": plan.skipped["synthetic"],
        "start_s": start_s,
        "start_cpu_s": start_cpu_s,
        "digest_s": digest_s,
        "digest_cpu_s": digest_cpu_s,
        "resume_s": resume_s,
        "resume_cpu_s": resume_cpu_s,
        "rows_per_s": len(drawn) / wall_s,
        "rows_per_cpu_s": len(drawn) / cpu_s,
        "checked": steps,
        "with_duplicates": with_duplicates,
        "rss_gib": rss / GIB,
        "private_gib": private / GIB,
    }


def source_of(path: Path) -> SourceInfo:
    """What `write_hashes` wrote."""
    if path.is_dir():
        return read_lists(path)
    hashes = np.load(path, mmap_mode="r")
    return SourceInfo("synthetic", hashes.shape[1], lambda: hashes)


def texts_of(info: SourceInfo, rows: np.ndarray) -> RaggedValues:
    """The texts of some rows that must not meet."""
    if info.conflicts is not None:
        return info.conflicts().take(rows)
    assert info.hashes is not None
    hashes = info.hashes()
    texts = np.ascontiguousarray(hashes[:, rows].T)
    return RaggedValues(texts.reshape(-1), np.arange(len(rows) + 1) * len(hashes))


def holds_text_twice(texts: RaggedValues) -> bool:
    """Whether a value occurs in two rows; a row's own repetitions are left out."""
    owners = np.repeat(np.arange(texts.num_rows), texts.lengths)
    order = np.lexsort((owners, texts.values))
    values, owners = texts.values[order], owners[order]
    return bool(((values[1:] == values[:-1]) & (owners[1:] != owners[:-1])).any())


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


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
