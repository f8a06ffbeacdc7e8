"""Every number of a set of short runs is what it was when it was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.witness import CASES, differences, record, write_inputs

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_the_record(name: str, tmp_path: Path) -> None:
    new = record(name, tmp_path, write_inputs(tmp_path))
    assert differences(RECORDED[name], new, exact=False) == []


def test_the_record_has_every_run_and_a_number_for_each_step() -> None:
    assert list(RECORDED) == list(CASES)
    for name, found in RECORDED.items():
        losses, norms = found["steps"].values()
        assert len(losses) == len(norms) >= 3, name


def test_prepared_data_give_the_run_of_the_raw_data() -> None:
    assert differences(RECORDED["direct"], RECORDED["prepared"], exact=True) == []


def test_a_run_resumed_within_an_epoch_has_the_losses_of_one_that_never_stopped_there() -> None:
    resumed, whole = (RECORDED[name]["steps"] for name in ("resumed_within_epoch", "resumed"))
    for column, values in resumed.items():
        assert values == whole[column][:8]


def test_a_changed_number_is_seen() -> None:
    old = RECORDED["direct"]
    loss = [*old["steps"]["train/loss"]]
    loss[-1] *= 1 + 1e-4
    new = {**old, "steps": {**old["steps"], "train/loss": loss}}
    assert [name for name, *_ in differences(old, new, exact=False)] == ["train/loss"]
    loss[-1] = old["steps"]["train/loss"][-1] * (1 + 1e-12)
    assert differences(old, new, exact=False) == []
    assert [name for name, *_ in differences(old, new, exact=True)] == ["train/loss"]


@pytest.mark.parametrize(
    ("place", "value", "seen"),
    [
        ("plan", "another", ["plan"]),
        ("train/loss", [], ["train/loss"]),
        ("train/loss", [float("nan")] * 5, ["train/loss"]),
        ("train/gradient_norm", [1.0] * 5, ["train/gradient_norm"]),
        ("sums", [1.0] * 3, ["sums"]),
        ("digest", "another", []),
    ],
)
def test_what_is_compared_on_any_machine(place: str, value: object, seen: list[str]) -> None:
    old = RECORDED["direct"]
    new = json.loads(json.dumps(old))
    part = next(part for part in (new, new["steps"], new["weights"]) if place in part)
    part[place] = value
    assert [name for name, *_ in differences(old, new, exact=False)] == seen
    assert [name for name, *_ in differences(old, new, exact=True)] == (seen or ["weights"])
