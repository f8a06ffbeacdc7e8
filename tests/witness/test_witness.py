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


def test_a_changed_number_is_seen() -> None:
    old = RECORDED["direct"]
    loss = [*old["steps"]["train/loss"]]
    loss[-1] *= 1 + 1e-5
    new = {**old, "steps": {**old["steps"], "train/loss": loss}}
    assert [name for name, *_ in differences(old, new, exact=False)] == ["train/loss"]
    loss[-1] = old["steps"]["train/loss"][-1] * (1 + 1e-12)
    assert differences(old, new, exact=False) == []
    assert [name for name, *_ in differences(old, new, exact=True)] == ["train/loss"]
