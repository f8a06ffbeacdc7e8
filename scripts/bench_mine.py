"""Time and memory of mining over many documents, beside torch's top-k in blocks; prints a markdown table.

    python scripts/bench_mine.py --documents 1000000 --queries 10000 --plain-queries 1024 --kill-after 3

Documents and queries are random unit vectors, memory-mapped. Mining runs in a process that is killed with
SIGKILL once so many blocks are there, and in another that goes on; then two blocks are mined once more and
compared bit for bit. CPU seconds are those of the processes, peak memory is anonymous (mapped files are not
counted).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inbatch.config.mine import MineKeys
from inbatch.data.hashing import hash_texts
from inbatch.data.ragged import RaggedValues
from inbatch.mining.blocks import Miner, Scorer, block_path, write_block
from inbatch.mining.build import make_miner, make_search
from inbatch.mining.distinct import DistinctTexts
from inbatch.mining.training_set import TrainingSet
from inbatch.mining.vectors import ArrayVectors

CPU = torch.device("cpu")


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.part:
        print(json.dumps(measured(args)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        args.folder = folder
        write_vectors(Path(folder) / "documents.npy", args.documents, args.dimension, seed=0)
        write_vectors(Path(folder) / "queries.npy", args.queries, args.dimension, seed=1)
        killed = run_part(args, "mine", kill=True)
        resumed = run_part(args, "mine")
        again = run_part(args, "check")
        plain = run_part(args, "plain")
    print(f"{platform.machine()}, torch {torch.__version__}, {args.threads} thread(s), ", end="")
    print(f"{args.documents:,} documents of {args.dimension} dimensions\n")
    print("| | queries | CPU s | s | queries per CPU s | peak memory MB |")
    print("|---|---|---|---|---|---|")
    names = {
        f"mined until SIGKILL after {killed['blocks']} blocks": killed,
        "resumed to the end": resumed,
        "two blocks again, " + ("equal" if again["equal"] else "NOT EQUAL"): again,
        "torch: topk(q @ c.T) in blocks": plain,
    }
    for name, each in names.items():
        rate, mib = each["queries"] / each["cpu_s"], each["peak"] / 1e6
        cells = (name, f"{each['queries']:,}", f"{each['cpu_s']:.1f}", f"{each['s']:.1f}")
        print("| " + " | ".join((*cells, f"{rate:.1f}", f"{mib:,.0f}")) + " |", flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--documents", type=int, default=1_000_000)
    add("--dimension", type=int, default=384)
    add("--queries", type=int, default=10_000)
    add("--plain-queries", type=int, default=1024)
    add("--kill-after", type=int, default=3, help="blocks")
    add("--negatives", type=int, default=5)
    add("--threads", type=int, default=1)
    add("--folder", default=None, help="for the vectors")
    add("--part", choices=("mine", "check", "plain"), default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def write_vectors(path: Path, count: int, dimension: int, *, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (count, dimension))
    for start in range(0, count, 1 << 16):
        part = generator.standard_normal((min(1 << 16, count - start), dimension), np.float32)
        rows[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)


def run_part(args: argparse.Namespace, part: str, *, kill: bool = False) -> dict[str, Any]:
    """What a part measures in a process of its own, or has used until it was killed."""
    line = [sys.executable, __file__, "--part", part, "--folder", args.folder]
    names = ("documents", "dimension", "queries", "plain_queries", "negatives", "threads")
    for name in (*names, "kill_after"):
        line += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    if not kill:
        out, _ = process.communicate()
        if process.returncode:
            sys.exit(process.returncode)
        found: dict[str, Any] = json.loads(out)
        return found
    start_s, peak = time.monotonic(), 0
    blocks = Path(args.folder) / "blocks"
    while len(list(blocks.glob("block-*.npz"))) < args.kill_after:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    _, _, usage = os.wait4(process.pid, 0)
    done = len(list(blocks.glob("block-*.npz")))
    return {
        "blocks": done,
        "queries": done * MineKeys().block_queries,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "s": time.monotonic() - start_s,
        "peak": peak,
    }


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """What the mining of all missing blocks takes, or another part."""
    folder, peaks = Path(args.folder), [0]
    documents = np.load(folder / "documents.npy", mmap_mode="r")
    queries = np.load(folder / "queries.npy", mmap_mode="r")
    ended = threading.Event()
    watch = threading.Thread(target=watch_memory, args=(peaks, ended), daemon=True)
    watch.start()
    cpu_s, start_s = time.process_time(), time.monotonic()
    more: dict[str, Any] = {}
    if args.part == "plain":
        num = args.plain_queries
        plain_top_k(torch.from_numpy(np.array(queries[:num])), documents, depth(args))
    else:
        num, more = mine_blocks(args, folder / "blocks", queries, documents)
    spent = {"cpu_s": time.process_time() - cpu_s, "s": time.monotonic() - start_s}
    ended.set()
    watch.join()
    return {"queries": num, "peak": peaks[0], **spent, **more}


def mine_blocks(
    args: argparse.Namespace, folder: Path, queries: np.ndarray, documents: np.ndarray
) -> tuple[int, dict[str, Any]]:
    """Mine the missing blocks, or two that are there once more; how many queries, and if these are equal."""
    miner = make_miner_of(args, queries, documents)
    if args.part == "mine":
        missing = [n for n in range(miner.num_blocks) if not block_path(folder, n).is_file()]
        for number in missing:
            write_block(folder, number, miner.mine(number))
    else:
        missing, again = [args.kill_after - 1, miner.num_blocks - 1], folder.parent / "again"
        for number in missing:
            write_block(again, number, miner.mine(number))
        pairs = [(block_path(folder, n), block_path(again, n)) for n in missing]
        equal = all(a.read_bytes() == b.read_bytes() for a, b in pairs)
        return queries_of(miner, missing), {"equal": equal}
    return queries_of(miner, missing), {}


def queries_of(miner: Miner, blocks: list[int]) -> int:
    return sum(stop - start for start, stop in map(miner.bounds, blocks))


class Numbered:
    """Texts that are a word and a number."""

    def __init__(self, word: str, count: int) -> None:
        self._word, self._count = word, count

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Hashes and rows of all."""
        yield hash_texts([f"{self._word} {i}" for i in range(self._count)]), np.arange(self._count)

    def read(self, rows: np.ndarray, keys: np.ndarray) -> list[str]:
        """The texts of some rows."""
        return [f"{self._word} {row}" for row in rows.tolist()]


def make_miner_of(args: argparse.Namespace, queries: np.ndarray, documents: np.ndarray) -> Miner:
    """Query i has document i as its positive; margins and a guide are left out."""
    number = np.arange(args.queries)
    one_each = RaggedValues(number, np.arange(args.queries + 1))
    training = TrainingSet(
        sources=(),
        queries=DistinctTexts([Numbered("query", args.queries)]),
        documents=DistinctTexts([Numbered("document", args.documents)]),
        query_of_row=number,
        row_positives=one_each,
        positives=one_each,
        same_text=np.full(args.queries, -1),
        keys=None,
    )
    keys = MineKeys(num_negatives=args.negatives, range_max=depth(args) - 1)
    model = Scorer(ArrayVectors(queries), ArrayVectors(documents), normalize=True)
    find = make_search(keys, model, index=Path("none"), device=CPU)
    return make_miner(training, keys, model=model, guide=None, find=find, seed=0)


def depth(args: argparse.Namespace) -> int:
    """Documents that are found of each query."""
    return int(10 * args.negatives + 2)


def plain_top_k(queries_QD: torch.Tensor, documents: np.ndarray, k: int) -> torch.Tensor:
    """The k best documents in the plain way: all scores of a block, its best, the best of both."""
    scores = numbers = None
    for start in range(0, len(documents), 16384):
        block = torch.from_numpy(np.array(documents[start : start + 16384]))
        found, places = (queries_QD @ block.T).topk(min(k, len(block)), dim=1)
        places += start
        if scores is None or numbers is None:
            scores, numbers = found, places
            continue
        scores, order = torch.cat([scores, found], 1).topk(k, dim=1)
        numbers = torch.cat([numbers, places], 1).gather(1, order)
    assert numbers is not None
    return numbers


def anonymous_bytes(pid: int | str = "self") -> int:
    """Anonymous memory of a process; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def watch_memory(peaks: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.05):
        peaks[0] = max(peaks[0], anonymous_bytes())


if __name__ == "__main__":
    main()
