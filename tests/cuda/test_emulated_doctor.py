"""`inbatch doctor` on two emulated CUDA devices: what it measures and compares on a GPU alone."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from pathlib import Path

from helpers.emulated_cuda.process import group, on_gpus
from inbatch.doctor.checks import losses, rates
from inbatch.doctor.checks.table import CHECKS
from inbatch.doctor.config import DoctorConfig
from inbatch.doctor.examine import doctor

pytestmark = group

ON_A_GPU = {
    *("sdpa, bf16", "packed, bf16", "packed, window, bf16", "packed, fp16", "packed, window, fp16"),
    *("packed, causal, bf16", "packed, causal, fp16"),
    *("packed encoder, bf16", "dropout, packed", "softmax (tiled), bf16", "products in tf32"),
    *("process group", "all_gather", "step, gathered", "step, in a ring", "memory", "device"),
}


def examine(rank: int, world_size: int, folder: Path) -> int:
    losses.obstacle_of_kernels = lambda device: "no compiled code runs on emulated devices"
    rates.matmul_flop_per_s = lambda device, dtype: 1e15
    checks = [check for check in CHECKS if check.section not in ("Versions", "Storage")]
    with (folder / f"{rank}.txt").open("w") as file, redirect_stdout(file):
        return doctor(DoctorConfig(output_dir=str(folder)), [CHECKS[0], *checks])


def test_two_devices_hold_what_a_run_needs(tmp_path: Path) -> None:
    assert on_gpus(examine, 2, tmp_path) == [0, 0], (tmp_path / "0.txt").read_text()
    found = json.loads((tmp_path / "doctor.json").read_text())
    assert {each["name"] for each in found["checks"] if each["holds"]} >= ON_A_GPU
    assert found["backend"] == "nccl"
    assert (found["device"]["type"], found["device"]["count"]) == ("cuda", 2)
    assert found["rates"]["matmul_flops"]["tf32"] == 1e15
