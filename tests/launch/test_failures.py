"""A rank fails in the middle of training: all ranks end soon, with an error, and the log has the cause."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.faults import fault
from helpers.launching import Ended, command, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
# The test ends as soon as all processes have. The bound holds on a machine under a load of 20, and is far
# below `timeout_s`, after which a rank that waits for a dead one would end too.
WITHIN_S = 900.0


LAST = {
    ("raise", 0): "[rank0]: RuntimeError: broken on purpose",
    ("raise", 1): "error: rank 1 has failed and says why above, so all ranks end",
    ("SIGKILL", 0): "error: rank 0 was killed, so rank 1 ends as well",
    ("SIGKILL", 1): "error: rank 1 was killed by SIGKILL, so all ranks end",
}


def fails(training: list[str], folder: Path, launcher: str, kind: str, rank: int) -> Ended:
    overrides = fault(kind, rank=rank, step=3)
    overrides += [f"output_dir={folder / 'run'}", "strategy.timeout_s=36000"]
    ended = run(command(launcher, *training, *overrides), folder=folder, within_s=WITHIN_S)
    assert ended.code != 0
    assert not (folder / "run" / "model").exists()
    return ended


@pytest.mark.parametrize(("kind", "rank"), list(LAST))
def test_only_the_rank_that_fails_says_why(
    training: list[str], tmp_path: Path, kind: str, rank: int
) -> None:
    """Lightning has started the ranks."""
    said = fails(training, tmp_path, "lightning", kind, rank).output
    assert said.splitlines()[-1] == LAST[kind, rank], said
    assert said.count("Traceback") == said.count("RuntimeError: ") == (kind == "raise"), said
    assert said.count("error: ") == ((kind, rank) != ("raise", 0)), said
    assert "by peer" not in said


def test_a_rank_of_torchrun_that_lost_another_says_no_more(
    training: list[str], tmp_path: Path
) -> None:
    """What torchrun says of them is its own."""
    said = fails(training, tmp_path, "torchrun", "raise", 1).output
    ours = [line for line in said.splitlines() if line.startswith(("[rank", "rank "))]
    lost = r"rank 0: error: another rank is gone \(.*by peer.*\)"
    others = [line for line in ours if not line.startswith("[rank1]")]
    assert all(re.fullmatch(lost, line) for line in others), said  # torchrun may end it before
    assert len(others) <= 1
    assert "[rank1]: RuntimeError: broken on purpose" in ours
