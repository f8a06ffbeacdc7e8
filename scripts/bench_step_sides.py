"""The two sides of bench_step.py: inbatch's module under its Trainer, and the peer's loop."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from bench_texts import COLUMNS
from side_by_side import start_peak, wait

TEMPERATURE = 0.01
LEARNING_RATE = 2e-5
WORKERS = {"cpu": 0, "cuda": 4}  # as `data.loader.num_workers: auto`


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

    from inbatch.data.collate import Collator
    from inbatch.data.plan.samplers import Shuffled
    from inbatch.data.sources.load import Source
    from inbatch.device.allocator import keep_freed_memory
    from inbatch.encoder import build_encoder
    from inbatch.guide import LiveGuide, Process, StoredGuide
    from inbatch.guide.fill import FillSettings
    from inbatch.losses import GIST
    from inbatch.optim import Constant, adamw
    from inbatch.run.datamodule import BatchModule, LoaderSettings
    from inbatch.run.module import BiEncoderModule
    from inbatch.step.settings import StepSettings
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
    settings = StepSettings(keep_gib=args.keep_gib, compile=args.compile)
    module = BiEncoderModule(
        encoder=encoder,
        losses={"texts": GIST(temperature=TEMPERATURE)},
        strategy=SingleDevice(),
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
        loader=LoaderSettings(num_workers=WORKERS[args.device]),
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
    from inbatch.data.plan.plan import SourceInfo
    from inbatch.data.plan.samplers import Shuffled

    info = SourceInfo(name="texts", num_rows=args.batch * (1 + args.repeat), hashes=None)
    plan = Shuffled().plan([info], global_batch_size=args.batch, seed=0, epoch=0, drop_last=True)
    return [batch.rows.tolist() for batch in plan]


def counted_tokens(features: list[dict[str, Tensor]], size: int) -> dict[str, int]:
    """Real tokens of a batch, and computed ones: mini-batches are trimmed to their longest text."""
    lengths = [column["attention_mask"].sum(1) for column in features]
    parts = [part for column in lengths for part in column.split(size)]
    return {
        "tokens": int(sum(part.sum() for part in parts)),
        "computed": int(sum(part.max() * len(part) for part in parts)),
    }
