"""`precision=auto`: what a device computes natively, where it is recorded, and that a run keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import run_train, write_triplets
from inbatch.config.schema import Precision
from inbatch.device.native_bfloat16 import cpu_multiplies_bfloat16, why_not_native
from inbatch.errors import ConfigError
from inbatch.run.precision import choose_precision
from inbatch.run.resume import Saved, read_checkpoint
from inbatch.strategies import World

OLD = "this CPU has no native bfloat16"
AUTO = {"_target_": "inbatch.strategies.Auto"}
CPUINFO = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f {}\nbugs\t\t:\n"


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16"])
@pytest.mark.parametrize("has", [True, False])
def test_a_cpu_with_instructions_for_it(
    name: str, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cpu_multiplies_bfloat16({"avx512_f": True, name: has}) is has
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(name if has else "avx512_vnni"))
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert cpu_multiplies_bfloat16(cpuinfo=tmp_path / "cpuinfo") is has
    assert not cpu_multiplies_bfloat16(cpuinfo=tmp_path / "not there")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not cpu_multiplies_bfloat16({name: True})


def test_torch_and_linux_agree_about_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    by_torch = cpu_multiplies_bfloat16()
    assert (why_not_native("cpu") is None) is by_torch
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert cpu_multiplies_bfloat16() is by_torch


@pytest.mark.parametrize(
    ("capabilities", "devices", "why"),
    [
        ([(9, 0), (8, 0)], 2, None),
        ([(9, 0), (7, 5)], 1, None),
        ([(9, 0), (7, 5)], 2, "a GPU of compute capability 7.5 has no native bfloat16"),
        ([(10, 0)], 4, None),  # a task of srun sees its own GPU alone
    ],
)
def test_every_gpu_that_is_used_must_have_it(
    capabilities: list[tuple[int, int]],
    devices: int,
    why: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    assert why_not_native("cuda", devices=devices) == why


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Put this process on a machine with native bfloat16 (None), or without it for some reason."""

    def put(why_not: str | None) -> None:
        monkeypatch.setattr("inbatch.run.precision.why_not_native", lambda *_, **__: why_not)

    return put


def chosen(configured: Precision, accelerator: str = "cpu", **given: Any) -> tuple[str, str]:
    options = {"strategy": AUTO, "saved": None, **given}
    precision = choose_precision(configured, World(accelerator, 1, 1), **options)
    return precision.name, precision.describe()


def saved_in(precision: str | None) -> Saved:
    settings = {} if precision is None else {"precision": precision}
    return Saved(Path("out/last.ckpt"), None, {"settings": settings})


def test_what_auto_stands_for(machine: Callable[[str | None], None]) -> None:
    machine(None)
    assert chosen("auto") == ("bf16", "bfloat16: this CPU computes it natively")
    assert chosen("auto", "cuda") == ("bf16", "bfloat16: this GPU computes it natively")
    assert chosen("fp32") == ("fp32", "fp32")
    machine(OLD)
    assert chosen("auto") == ("fp32", f"float32: {OLD}")
    assert chosen("bf16", saved=saved_in("fp32")) == ("bf16", "bf16")


def test_a_strategy_may_refuse_it(
    machine: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(None)
    monkeypatch.setattr("inbatch.strategies.ddp.SingleDevice.refuses", ("bf16",))
    assert chosen("auto") == ("fp32", "float32: SingleDevice does not compute in bfloat16")


@pytest.mark.parametrize("begun", ["fp32", "bf16"])
def test_a_resumed_run_goes_on_in_what_it_began_with(
    begun: str, machine: Callable[[str | None], None]
) -> None:
    machine(None)
    name, described = chosen("auto", saved=saved_in(begun))
    assert (name, described.partition(": ")[2]) == (begun, "as the run began")
    assert chosen("auto", saved=saved_in(None))[0] == "bf16"


@pytest.mark.parametrize(
    ("begun", "accelerator", "why", "said"),
    [
        ("bf16", "cpu", OLD, f"{OLD}: set precision=bf16 to go on in it all the same, slower, or "),
        ("bf16-true", "cuda", "no", "no: set precision=bf16-true to go on in it all the same"),
        ("fp16", "cpu", None, "fp16 needs a GPU: set precision=fp32 or precision=bf16"),
        ("tf32", "cpu", None, "tf32 needs a GPU: set precision=fp32 or precision=bf16"),
    ],
)
def test_a_resumed_run_is_not_switched(
    begun: str,
    accelerator: str,
    why: str | None,
    said: str,
    machine: Callable[[str | None], None],
) -> None:
    machine(why)
    with pytest.raises(ConfigError) as error:
        chosen("auto", accelerator, saved=saved_in(begun))
    start = f"precision='auto' was {begun} when out/last.ckpt was saved, and "
    assert str(error.value).startswith(start + said)


def test_a_run_says_and_records_it_and_keeps_it_elsewhere(
    tmp_path: Path, machine: Callable[[str | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_triplets(tmp_path / "triplets.jsonl", 24)
    options = [f"data.train.triplets={data}", "global_batch_size=8", "precision=auto"]
    for folder, first, second in (("new", None, OLD), ("old", OLD, None)):
        name = "fp32" if first else "bf16"
        here = [*options, f"output_dir={tmp_path / folder}"]
        machine(first)
        output = run_train(*here, "trainer.max_steps=1")
        why = f"float32: {OLD}" if first else "bfloat16: this CPU computes it natively"
        assert f"run.precision: {why}" in capsys.readouterr().out.splitlines()
        assert yaml.safe_load((output / "config.yaml").read_text())["precision"] == name
        assert f"- **Precision**: {name}\n" in (output / "model" / "README.md").read_text()
        last = read_checkpoint(output / "checkpoints" / "last.ckpt", resume="auto")
        assert last.record["settings"]["precision"] == name
        machine(second)
        if second is None:
            run_train(*here, "trainer.max_steps=2")
            assert "run.precision: float32: as the run began" in capsys.readouterr().out
        else:
            with pytest.raises(ConfigError, match=r"^precision='auto' was bf16 when"):
                run_train(*here, "trainer.max_steps=2")


def _train(rank: int, world_size: int, options: list[str]) -> str | None:
    quiet()
    with pytest.MonkeyPatch.context() as patch:
        why_not = OLD if rank else None
        patch.setattr("inbatch.run.precision.why_not_native", lambda *_, **__: why_not)
        try:
            run_train(*options)
        except ConfigError as error:
            return str(error)
    return None


def test_ranks_of_unequal_machines_do_not_train(tmp_path: Path) -> None:
    data = write_triplets(tmp_path / "triplets.jsonl", 24)
    options = [f"data.train.triplets={data}", "global_batch_size=8", "precision=auto"]
    options += ["trainer.max_steps=1", f"output_dir={tmp_path / 'run'}"]
    said = run(_train, 2, options)
    assert said[0] == said[1]
    assert str(said[0]).startswith(
        "rank 1 has another precision than rank 0: set precision=fp32 (or "
    )
