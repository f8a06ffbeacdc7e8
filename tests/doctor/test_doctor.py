"""`inbatch doctor` on one process: what holds, and one sentence for each thing that does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inbatch.cli.doctor import read_config
from inbatch.doctor.checks import losses, rates, replay, step, storage
from inbatch.doctor.checks.table import CHECKS
from inbatch.doctor.config import DoctorConfig
from inbatch.doctor.examine import doctor
from inbatch.doctor.result import Check, Machine, Result
from inbatch.doctor.text import WIDTH
from inbatch.encoder import varlen
from inbatch.errors import ConfigError

NAMES = [check.name for check in CHECKS]


def check_of(name: str) -> list[Check]:
    return [CHECKS[0], CHECKS[NAMES.index(name)]]


def run(folder: Path, checks: Sequence[Check]) -> int:
    return doctor(DoctorConfig(output_dir=str(folder), device="cpu"), checks)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged does not depend on what else this machine does."""
    monkeypatch.setattr(storage, "SLOWEST", 0)
    fixed = {torch.float32: 1e11, torch.bfloat16: 3e11, torch.float16: 1e11}
    monkeypatch.setattr(rates, "matmul_flop_per_s", lambda device, dtype: fixed[dtype])


@pytest.mark.usefixtures("idle")
def test_all_holds_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "new", CHECKS) == 0
    printed = capsys.readouterr().out.splitlines()
    found = json.loads((tmp_path / "new" / "doctor.json").read_text())
    assert max(map(len, printed)) <= WIDTH
    assert not any("WRONG" in line for line in printed)
    assert "checks hold." in " ".join(printed[-3:])
    assert found["problems"] == []
    assert {finding["holds"] for finding in found["checks"]} == {True, None}
    names = {finding["name"] for finding in found["checks"]}
    assert {
        "torch",
        "bf16 in hardware",
        "memory",
        "output folder",
        "GIST",
        "step, gathered",
    } <= names
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "doctor.json"]


def test_the_rates_are_where_a_planner_looks(tmp_path: Path) -> None:
    checks = [check for check in CHECKS if check.section in ("Device", "Ranks", "Rates")]
    assert run(tmp_path, checks) in (0, 1)  # on a busy machine a rate may be too low
    found = json.loads((tmp_path / "doctor.json").read_text())
    assert found["device"]["type"] == "cpu"
    assert isinstance(found["device"]["native_bf16"], bool)
    assert 0 < found["memory_free_bytes"] <= found["memory_bytes"]
    measured = found["rates"]["matmul_flops"]
    assert measured.keys() == {"float32", "tf32", "bfloat16", "float16"}
    assert measured["tf32"] is None
    assert all(measured[name] > 1e8 for name in measured.keys() - {"tf32"})
    assert found["rates"]["memory_bytes_per_s"] > 1e8
    none: dict[str, list[Any]] = {"all_reduce": [], "all_gather": [], "reduce_scatter": []}
    assert found["rates"]["collectives"] == none


def test_what_is_wrong_is_said_in_one_sentence_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Erring(losses.losses.GIST):
        def __call__(self, inputs: Any) -> Any:
            output = super().__call__(inputs)
            return output._replace(loss=output.loss * 1.001)

    def gradient(encoder: Any) -> Tensor:
        return 1.001 * step_gradient(encoder) if next(calls) else step_gradient(encoder)

    def another(*options: Any, **more: Any) -> Any:
        encoder = make_encoder(*options, **more)
        encoder.register_forward_hook(lambda module, given, output: output + torch.rand(()))
        monkeypatch.setattr(replay.RngState, "restore", lambda state: None)
        return encoder

    def blurred(*heads: Tensor, scale: float, **options: Any) -> Tensor:
        return attend(*heads, scale=1.05 * scale, **options)

    step_gradient, make_encoder = step.gradient, replay.tiny_encoder
    attend = varlen.per_text_attention
    monkeypatch.setattr(varlen, "per_text_attention", blurred)
    calls = iter([False, True])
    monkeypatch.setattr(losses.losses, "GIST", Erring)
    monkeypatch.setattr(step, "gradient", gradient)
    monkeypatch.setattr(replay, "tiny_encoder", another)
    monkeypatch.setattr(rates, "native_bfloat16", lambda kind: (True, "this CPU has AMX-BF16"))
    fixed = {torch.float32: 1e11, torch.bfloat16: 1e9, torch.float16: 1e9}
    monkeypatch.setattr(rates, "matmul_flop_per_s", lambda device, dtype: fixed[dtype])
    names = ("products", "softmax", "attention", "packed encoder", "replay", "training step")
    assert run(tmp_path, [CHECKS[0], *(check_of(name)[1] for name in names)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    problems = json.loads((tmp_path / "doctor.json").read_text())["problems"]
    assert [" ".join(problem.split()[:4]) for problem in problems] == [
        "products in bf16 reach",
        "softmax (tiled) errs by",
        "softmax (tiled), bf16 errs",
        "packed, float32 errs by",
        "packed, window, float32 errs",
        "packed, causal, float32 errs",
        "packed encoder, float32 errs",
        "a forward with sdpa",
        "a forward with varlen",
        "step, gathered errs by",
    ]
    assert "10 things are wrong:" in printed
    assert all(f"- {problem}" in printed for problem in problems)


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "below", check_of("storage")) == 1
    printed = capsys.readouterr().out
    assert "1 thing is wrong:" in printed
    assert "cannot be written (Not a directory): set a folder" in " ".join(printed.split())
    assert "0 s; not written: " in printed


def test_a_check_that_raises_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kernel(machine: Machine) -> Iterator[Result]:
        raise RuntimeError("no kernel image")
        yield

    assert run(tmp_path, [CHECKS[0], Check("Own", kernel), Check("Own", lambda machine: [])]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "- the check of kernel fails with RuntimeError: no kernel image" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output_dir"], r"'output_dir' is not key=value: set output_dir=FOLDER"),
        (["output=x"], r"^output is not a valid key of .*: did you mean 'output_dir'\?"),
        (["device=gpu"], r"^device='gpu' is not one of auto, cpu, cuda"),
        (["timeout_s=0"], r"^timeout_s=0 is too small"),
    ],
)
def test_a_mistyped_key_is_one_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(arguments)


def test_keys_are_read() -> None:
    expected = DoctorConfig(output_dir="2026", device="cpu", timeout_s=5)
    assert read_config(["output_dir=2026", "device=cpu", "timeout_s=5"]) == expected
