"""`inbatch doctor` on two ranks: what they have together, and a rank that differs or does not answer."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from helpers.distributed import run
from inbatch.doctor import watch
from inbatch.doctor.checks import versions
from inbatch.doctor.checks.table import CHECKS
from inbatch.doctor.config import DoctorConfig
from inbatch.doctor.examine import doctor
from inbatch.doctor.result import Check, Machine, Result
from inbatch.doctor.text import WIDTH


def examine(
    rank: int, world_size: int, folder: Path, checks: Sequence[Check], timeout_s: float
) -> int:
    """What rank 0 prints is in a file, since it may end without returning."""
    config = DoctorConfig(output_dir=str(folder), device="cpu", timeout_s=timeout_s)
    with (folder / f"{rank}.txt").open("w") as file, redirect_stdout(file):
        return doctor(config, checks)


def test_two_ranks(tmp_path: Path) -> None:
    code, other = run(examine, 2, tmp_path, CHECKS, 60.0)
    assert other == 0
    found = json.loads((tmp_path / "doctor.json").read_text())
    # A rate may be too low where other tests take the cores and the disk.
    by_load = re.compile(r"(ranks? [\d, ]+: )?(products in bf16 reach|output_dir=\S+ takes) ")
    wrong = [problem for problem in found["problems"] if not by_load.match(problem)]
    assert (wrong, code) == ([], 1 if found["problems"] else 0)
    printed = (tmp_path / "0.txt").read_text().splitlines()
    assert printed[0].startswith("inbatch doctor: 2 ranks on ")
    assert max(map(len, printed)) <= WIDTH
    assert found["world_size"] == 2
    assert [each["rank"] for each in found["ranks"]] == [0, 1]
    for rows in found["rates"]["collectives"].values():
        assert [row["bytes"] for row in rows][:2] == [2**12, 2**16]
        assert all(row["ranks"] == 2 and row["seconds"] > 0 for row in rows)
    held = {each["name"] for each in found["checks"] if each["holds"]}
    assert {"all_reduce", "seen by all ranks", "step, gathered", "step, in a ring"} <= held


def with_other_version(rank: int, world_size: int, folder: Path) -> int:
    if rank == 1:
        found = versions.installed
        versions.installed = lambda name: "2.12.1" if name == "torch" else found(name)
    return examine(rank, world_size, folder, CHECKS[:2], 60.0)


def test_a_rank_with_another_version_is_named(tmp_path: Path) -> None:
    assert run(with_other_version, 2, tmp_path) == [1, 0]
    (problem,) = json.loads((tmp_path / "doctor.json").read_text())["problems"]
    assert problem.startswith("torch of rank 1 is '2.12.1', and of rank 0 '2.")
    assert problem.endswith("install the same on all nodes")


def waits(machine: Machine) -> Iterator[Result]:
    yield Result("before", "found")
    if machine.rank == 1:
        time.sleep(60)


def leaves(machine: Machine) -> Iterator[Result]:
    if machine.rank == 1:
        os._exit(0)
    yield Result("there", "yes")


def without_rank_1(rank: int, world_size: int, folder: Path, check: Check | None) -> int:
    if rank == 1 and check is None:
        os._exit(0)
    checks = [CHECKS[0], check] if check else CHECKS
    return examine(rank, world_size, folder, checks, 1.5)


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (None, "rank 1 did not arrive within 1.5 s: see whether all have started"),
        (Check("Own", leaves), "rank 1 did not answer within 1.5 s in leaves: see whether"),
        (Check("Own", waits), "rank 1 did not end waits within 1.5 s: look at what it uses"),
    ],
    ids=["never there", "gone", "stuck"],
)
def test_a_rank_that_does_not_answer_is_named_in_time(
    check: Check | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_GRACE_S", 0.7)
    with pytest.raises(AssertionError, match="rank 0 ended without a result"):
        run(without_rank_1, 2, tmp_path, check, timeout_s=60.0)  # it ends in the middle
    printed = " ".join((tmp_path / "0.txt").read_text().split())
    assert f"1 thing is wrong: - {sentence}" in printed
    (problem,) = json.loads((tmp_path / "doctor.json").read_text())["problems"]
    assert problem.startswith(sentence)
