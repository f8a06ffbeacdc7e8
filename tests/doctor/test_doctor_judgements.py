"""What a check says of numbers and texts that are given to it, and what becomes of the results of ranks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from inbatch.doctor.checks import device, losses, rates, storage, versions
from inbatch.doctor.checks.accuracy import Accuracy
from inbatch.doctor.checks.collectives import size
from inbatch.doctor.report import Report, merge
from inbatch.doctor.result import Check, Machine, Result, perform
from inbatch.doctor.text import WIDTH, lines

GIB = 2**30
FOLDER = Path("outputs")
CPU = Machine(device=torch.device("cpu"))
MOUNTS = """\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 0:51 / /shared rw,relatime - nfs4 server:/export rw
41 40 0:52 / /shared/fast rw - lustre 10.0.0.1@o2ib:/fast rw
42 22 0:53 / /a\\040b rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("fine", "wrong", "said"),
    [
        (storage.too_slow(FOLDER, 50e6), storage.too_slow(FOLDER, 2 * 2**20), "9 minutes"),
        (device.unused_gpu(None, None), device.unused_gpu("550.54", None), "built for CPUs only"),
        (device.unused_gpu(None, "12.8"), device.unused_gpu("470.1", "12.8"), "newer driver"),
        (device.too_few_gpus(8, 8), device.too_few_gpus(1, 8), "each sees 1 GPUs"),
        (device.taken_memory(79, 80), device.taken_memory(9 * GIB, 80 * GIB), "only 9.0 of 80.0"),
        (
            rates.slow_bfloat16(400e9, 100e9, "x"),
            rates.slow_bfloat16(20e9, 100e9, "this CPU has AMX-BF16"),
            "in bf16 reach 20 GFLOP/s and in float32 100 GFLOP/s, although this CPU has AMX-BF16",
        ),
        (
            rates.below_data_sheet(700e12, "NVIDIA H100 80GB HBM3"),
            rates.below_data_sheet(100e12, "NVIDIA H100 80GB HBM3"),
            "10% of the data sheet of NVIDIA H100 80GB HBM3",
        ),
        (
            rates.below_data_sheet(100e12, "NVIDIA H100 80GB HBM3 MIG 1g.10gb"),
            rates.below_data_sheet(250e12, "NVIDIA H100 PCIe"),
            "33% of",
        ),
        (rates.behind_fastest(80.0, 100.0), rates.behind_fastest(6e14, 9e14), "the fastest rank"),
    ],
)
def test_a_number_out_of_bounds_is_a_sentence(fine: str, wrong: str, said: str) -> None:
    assert fine == ""
    assert said in wrong


@pytest.mark.parametrize(
    ("folder", "kind", "is_network"),
    [
        ("/elsewhere/out", "ext4", False),
        ("/shared/out", "nfs4", True),
        ("/shared/fast/out", "lustre", True),
        ("/sharedness", "ext4", False),
        ("/a b/out", "tmpfs", False),
    ],
)
def test_the_file_system_of_a_folder(
    folder: str, kind: str, is_network: bool, tmp_path: Path
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert storage.file_system(Path(folder), tmp_path / "mounts") == kind
    assert storage.is_network(kind) == is_network
    assert storage.file_system(Path(folder), tmp_path / "none") == "unknown"


@pytest.mark.parametrize(
    ("name", "found", "holds", "said"),
    [
        ("torch", "2.13.0+cpu", True, ""),
        ("torch", "2.9.1", False, "torch is 2.9.1, and inbatch needs >=2.11,<2.14: run pip"),
        ("torch", None, False, "torch is not installed: run pip install 'torch>=2.11,<2.14'"),
        ("wandb", None, None, ""),
    ],
)
def test_a_version_is_what_the_package_asks_for(
    name: str, found: str | None, holds: bool | None, said: str
) -> None:
    result = versions.version_of(name, found, ">=2.11,<2.14")
    assert result.holds is holds
    assert result.sentence.startswith(said)
    assert bool(result.sentence) == (holds is False)


def test_the_driver_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "version"
    monkeypatch.setattr(versions, "_DRIVER", path)
    assert versions.driver_version() is None
    path.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version: 12.2\n"
    )
    assert versions.driver_version() == "535.104.05"


def test_what_this_package_asks_for_is_in_its_metadata() -> None:
    assert versions.wanted_versions()["torch"]
    assert versions.wanted_versions()["wandb"]  # of an extra


@pytest.mark.parametrize(("error", "holds"), [(1e-6, True), (1e-3, False), (math.nan, False)])
def test_an_error_is_judged_by_its_limit(error: float, holds: bool) -> None:
    exact = torch.tensor([1.0, 100.0])
    result = Accuracy("softmax", 1e-5).result(
        [(exact, exact), (exact + torch.tensor([0.0, 100.0]) * error, exact)]
    )
    assert result.holds is holds
    assert ("softmax errs by" in result.sentence) != holds
    json.dumps(result.data, allow_nan=False)


def test_a_check_that_raises_has_failed_with_its_message() -> None:
    def broken_driver(machine: Machine) -> Iterator[Result]:
        yield Result("before", "fine")
        raise RuntimeError("CUDA error:\n  no kernel image" + " by far" * 99)

    before, failed = perform(Check("Device", broken_driver), CPU)
    assert before.holds
    assert (failed.name, failed.holds) == ("broken driver", False)
    assert failed.sentence.startswith(
        "the check of broken driver fails with RuntimeError: CUDA error: no kernel image by far"
    )
    assert len(failed.sentence) < 240


def test_ranks_are_named_where_they_differ() -> None:
    def of(version: str, sentence: str = "") -> list[Result]:
        return [
            Result("torch", version, not sentence, sentence, {"v": version}, "install the same")
        ]

    (equal,) = merge("V", {0: of("2"), 1: of("2")}, world_size=2)
    assert equal.holds
    (unequal,) = merge("V", {0: of("2"), 1: of("1"), 2: of("2"), 3: of("1")}, world_size=4)
    assert unequal.holds is False
    assert unequal.problems == ("torch of ranks 1, 3 is '1', and of rank 0 '2': install the same",)
    (wrong,) = merge("V", {0: of("2"), 1: of("2", "it errs")}, world_size=2)
    assert wrong.problems == ("rank 1: it errs",)
    (all_wrong,) = merge("V", {0: of("2", "it errs"), 1: of("2", "it errs")}, world_size=2)
    assert all_wrong.problems == ("it errs",)


def test_long_texts_stay_within_80_columns() -> None:
    report = Report(2)
    long = Result("a name of 25 characters, 5", "many words " * 20, False, "why, " * 40)
    report.add("Device", {0: [long], 1: [Result("only on rank 1", "\x1b[1m", None)]})
    text = list(lines(report))
    assert max(map(len, text)) <= WIDTH == 80
    assert any("WRONG" in line for line in text)
    assert "\x1b" not in "".join(text)
    assert report.as_json()["ranks"] == [{"rank": 0}, {"rank": 1}]


def test_sizes_are_written_as_people_do() -> None:
    assert [size(2**12), size(2**28)] == ["4 KiB", "256 MiB"]


def test_every_loss_is_checked_and_follows_float64() -> None:
    assert {
        "DistillKL",
        "EmbeddingCosine",
        "Matryoshka",
        "WeightedSum",
    } <= losses.all_losses().keys()
    found = list(losses.every_loss(CPU))
    assert [result.name for result in found] == list(losses.all_losses())
    assert [result for result in found if not result.holds] == []
