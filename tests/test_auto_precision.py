"""`precision=auto`: what a device computes natively, where it is recorded, and that a run keeps it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import run_train, write_triplets
from inbatch.config.schema import Precision
from inbatch.errors import ConfigError
from inbatch.run.precision import choose_precision
from inbatch.run.resume import Saved, read_checkpoint
from inbatch.strategies import World

NEW = "this CPU has native bfloat16 (AVX512-BF16)"
OLD = "this CPU has no native bfloat16"
AUTO = {"_target_": "inbatch.strategies.Auto"}


def put_on(patch: pytest.MonkeyPatch, says: str) -> None:
    """Put this process on a machine that says so."""
    patch.setattr("inbatch.run.precision.native_bfloat16", lambda *_, **__: (says == NEW, says))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return partial(put_on, monkeypatch)


def chosen(configured: Precision, accelerator: str = "cpu", **given: Any) -> tuple[str, str]:
    options = {"strategy": AUTO, "saved": None, **given}
    precision = choose_precision(configured, World(accelerator, 1, 1), **options)
    return precision.name, precision.describe()


def saved_in(precision: str | None) -> Saved:
    settings = {} if precision is None else {"precision": precision}
    return Saved(Path("out/last.ckpt"), None, {"settings": settings})


def test_what_auto_stands_for(machine: Callable[[str], None]) -> None:
    machine(NEW)
    assert chosen("auto") == ("bf16", f"bfloat16: {NEW}")
    assert chosen("fp32") == ("fp32", "fp32")
    machine(OLD)
    assert chosen("auto") == ("fp32", f"float32: {OLD}")
    assert chosen("bf16", saved=saved_in("fp32")) == ("bf16", "bf16")


def test_a_strategy_may_refuse_it(
    machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(NEW)
    monkeypatch.setattr("inbatch.strategies.ddp.SingleDevice.refuses", ("bf16",))
    assert chosen("auto") == ("fp32", "float32: SingleDevice does not compute in bfloat16")


@pytest.mark.parametrize("begun", ["fp32", "bf16"])
def test_a_resumed_run_goes_on_in_what_it_began_with(
    begun: str, machine: Callable[[str], None]
) -> None:
    machine(NEW)
    name, described = chosen("auto", saved=saved_in(begun))
    assert (name, described.partition(": ")[2]) == (begun, "as the run began")
    assert chosen("auto", saved=saved_in(None))[0] == "bf16"


@pytest.mark.parametrize(
    ("begun", "accelerator", "says", "said"),
    [
        ("bf16", "cpu", OLD, f"{OLD}: set precision=bf16 to go on in it all the same, slower, or "),
        ("bf16-true", "cuda", OLD, f"{OLD}: set precision=bf16-true to go on in it all the same"),
        ("fp16", "cpu", NEW, "fp16 needs a GPU: set precision=fp32 or precision=bf16"),
        ("tf32", "cpu", NEW, "tf32 needs a GPU: set precision=fp32 or precision=bf16"),
    ],
)
def test_a_resumed_run_is_not_switched(
    begun: str,
    accelerator: str,
    says: str,
    said: str,
    machine: Callable[[str], None],
) -> None:
    machine(says)
    with pytest.raises(ConfigError) as error:
        chosen("auto", accelerator, saved=saved_in(begun))
    start = f"precision was {begun} when out/last.ckpt was saved, and "
    assert str(error.value).startswith(start + said)


def test_a_run_says_and_records_it_and_keeps_it_elsewhere(
    tmp_path: Path, machine: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_triplets(tmp_path / "triplets.jsonl", 24)
    options = [f"data.train.triplets={data}", "global_batch_size=8", "precision=auto"]
    for folder, first, second in (("new", NEW, OLD), ("old", OLD, NEW)):
        name, word = ("bf16", "bfloat16") if first == NEW else ("fp32", "float32")
        here = [*options, f"output_dir={tmp_path / folder}"]
        machine(first)
        output = run_train(*here, "trainer.max_steps=1")
        assert f"run.precision: {word}: {first}" in capsys.readouterr().out.splitlines()
        assert yaml.safe_load((output / "config.yaml").read_text())["precision"] == name
        assert f"- **Precision**: {name}\n" in (output / "model" / "README.md").read_text()
        last = read_checkpoint(output / "checkpoints" / "last.ckpt", resume="auto")
        assert last.record["settings"]["precision"] == name
        machine(second)
        if second == NEW:
            run_train(*here, "trainer.max_steps=2")
            assert "run.precision: float32: as the run began" in capsys.readouterr().out
        else:
            with pytest.raises(ConfigError, match=r"^precision was bf16 when"):
                run_train(*here, "trainer.max_steps=2")


def _train(rank: int, world_size: int, options: list[str]) -> str | None:
    quiet()
    with pytest.MonkeyPatch.context() as patch:
        put_on(patch, OLD if rank else NEW)
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
