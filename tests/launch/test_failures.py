"""A rank fails in the middle of training: all ranks end soon, with an error, and the log has the cause."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.faults import fault
from helpers.launching import command, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
# The test ends as soon as all processes have. The bound holds on a machine under a load of 20, and is far
# below `timeout_s`, after which a rank that waits for a dead one would end too.
WITHIN_S = 900.0


@pytest.mark.parametrize(
    ("launcher", "kind", "rank"),
    [
        ("lightning", "raise", 1),
        ("lightning", "SIGKILL", 0),
        ("lightning", "SIGKILL", 1),
        ("torchrun", "raise", 1),
        ("torchrun", "SIGKILL", 1),
    ],
)
def test_a_failing_rank_ends_all(
    training: list[str], tmp_path: Path, launcher: str, kind: str, rank: int
) -> None:
    overrides = fault(kind, rank=rank, step=3)
    overrides += [f"output_dir={tmp_path / 'run'}", "strategy.timeout_s=36000"]
    ended = run(command(launcher, *training, *overrides), folder=tmp_path, within_s=WITHIN_S)
    assert ended.code != 0
    killed = "Connection (closed|reset) by peer"
    cause = "RuntimeError: broken on purpose" if kind == "raise" else killed
    assert re.search(cause, ended.output), ended.output
    assert not (tmp_path / "run" / "model").exists()
