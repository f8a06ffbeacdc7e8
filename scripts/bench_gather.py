"""Gathered or in a ring: loss and gradient of embeddings over several ranks; prints a markdown table.

    torchrun --nproc-per-node 4 scripts/bench_gather.py --batch 4096 8192 --dimension 384
    torchrun --nproc-per-node 8 scripts/bench_gather.py --batch 65536 1048576 --dimension 768 --device cuda

GIST with its four blocks, from each rank's embeddings to their gradients, collectives included. Both
forms must agree on the gradient before anything is timed. Times are medians of the slowest rank. Extra
memory is the peak of the first run above what stood before, of the rank with the most: resident memory
on a CPU, torch's allocations on a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import normalize

from inbatch.gather import Gather, GlobalGather, LocalGather, RowsRing, split_rows
from inbatch.losses import GIST, LossInput
from side_by_side import add_arguments, environment, start_peak, wait

KINDS = {"gathered": GlobalGather, "ring": LocalGather}
MAX_ERROR = 1e-5  # relative, of float32 gradients
CHECK_BATCH = 203  # rows differ between ranks
Run = Callable[[], Tensor]


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    start(args)
    error = check(args)
    say(f"{environment(args)}; {dist.get_world_size()} ranks; {args.columns} columns of")
    say(
        f"{args.dimension} dimensions, guide {args.guide_dimension}; float32; seconds, MiB of a rank"
    )
    say(f"At batch {CHECK_BATCH} gradients differ by {error:.0e} (relative).\n")
    say(
        "| batch | gathered s | ring s | ratio | gathered MiB | ring MiB |\n|---|---|---|---|---|---|"
    )
    for batch in args.batch:
        seconds, mib = zip(*(measure(args, batch, kind) for kind in KINDS))
        say(
            f"| {batch:,} | {seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[1] / seconds[0]:.2f}x "
            f"| {mib[0]:,.0f} | {mib[1]:,.0f} |"
        )
    dist.destroy_process_group()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[2048])
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--guide-dimension", type=int, default=384)
    parser.add_argument("--columns", type=int, default=3)
    add_arguments(parser)
    return parser.parse_args()


def start(args: argparse.Namespace) -> None:
    """Join the other ranks, each on a GPU of its own."""
    if args.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if args.device == "cuda" else "gloo")


def say(line: str) -> None:
    if dist.get_rank() == 0:
        print(line, flush=True)


def check(args: argparse.Namespace) -> float:
    """Relative error of the ring's gradient beside the gathered one's."""
    gathered, ring = (make_run(args, CHECK_BATCH, kind)() for kind in KINDS)
    squares = torch.stack([(ring - gathered).square().sum(), gathered.square().sum()])
    dist.all_reduce(squares)
    error = float((squares[0] / squares[1]).sqrt())
    if error > MAX_ERROR:
        raise SystemExit(f"gradients differ by {error:.1e}")
    return error


def measure(args: argparse.Namespace, batch: int, kind: str) -> tuple[float, float]:
    """Median seconds and extra MiB, the largest over the ranks."""
    run, walls = make_run(args, batch, kind), []
    dist.barrier()
    if args.device == "cpu":  # else memory of the form before would stand ready for this one
        ctypes.CDLL(None).malloc_trim(0)
    peak_mib = start_peak(args.device)
    for number in range(args.repeat + 1):
        dist.barrier()
        began_s = time.perf_counter()
        run()
        wait(args.device)
        walls.append(time.perf_counter() - began_s)
        if number == 0:
            extra_mib = peak_mib()
    found = torch.tensor([median(walls[1:] or walls), extra_mib], device=args.device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return float(found[0]), float(found[1])


def make_run(args: argparse.Namespace, batch: int, kind: str) -> Run:
    """From this rank's embeddings to their gradient [C, b, D]."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    gather: Gather = KINDS[kind](rank, world_size)
    num_local, loss = split_rows(batch, world_size)[rank], GIST()
    generator = torch.Generator().manual_seed(rank)
    shape = (args.columns, num_local)
    local = torch.randn(*shape, args.dimension, generator=generator).to(args.device)
    guide = torch.randn(*shape, args.guide_dimension, generator=generator).to(args.device)
    guide = normalize(guide, dim=-1)

    def run() -> Tensor:
        rows = gather.rows(num_local, batch)
        leaf = local.detach().requires_grad_()
        data = gather.start_data([guide.transpose(0, 1)], rows)
        columns = gather.embeddings(leaf, rows)
        theirs = data.wait()[0].unbind(1)
        ring = RowsRing(rows.counts, rank) if kind == "ring" else None
        output = loss(LossInput(columns, rows.owned, None, theirs, None, ring))
        (gradient,) = torch.autograd.grad(output.loss * rows.weight, leaf)
        return gradient

    return run


if __name__ == "__main__":
    main()
