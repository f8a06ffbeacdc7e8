"""A rank fails in the middle of training: all ranks end soon, with an error, and the log has the cause."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from helpers.distributed import run as run_ranks
from helpers.faults import fault
from helpers.forked_command import train_command
from helpers.launching import command, run
from inbatch.strategies import failed_rank

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
LAST = {
    ("raise", 0): "[rank0]: RuntimeError: broken on purpose",
    ("raise", 1): "error: rank 1 has failed and says why above, so all ranks end",
    ("SIGKILL", 0): "error: rank 0 was killed, so rank 1 ends as well",
}


def breaking(folder: Path, kind: str, rank: int) -> list[str]:
    """Overrides of a run that a rank leaves in its third step."""
    output = [f"output_dir={folder / 'run'}", "strategy.timeout_s=36000"]
    return [*fault(kind, rank=rank, step=3), *output]


@pytest.mark.parametrize(
    ("kind", "rank"),
    [
        pytest.param("raise", 0, marks=pytest.mark.exhaustive),
        *(each for each in LAST if each != ("raise", 0)),
    ],
)
def test_only_the_rank_that_fails_says_why(
    training: list[str], tmp_path: Path, kind: str, rank: int
) -> None:
    """Lightning has started the ranks."""
    line = command("lightning", *training, *breaking(tmp_path, kind, rank))
    ended = run(line, folder=tmp_path)
    said = ended.output
    assert ended.code != 0
    assert not (tmp_path / "run" / "model").exists()
    assert said.splitlines()[-1] == LAST[kind, rank], said
    assert said.count("Traceback") == said.count("RuntimeError: ") == (kind == "raise"), said
    assert said.count("error: ") == ((kind, rank) != ("raise", 0)), said
    assert "by peer" not in said


def watched(rank: int, world_size: int, log: Path) -> None:
    """Rank 0, which has started two others; the second is killed."""
    failed_rank.GRACE_S = 0.5
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    log.with_name("pids").write_text(" ".join(str(process.pid) for process in started))
    with log.open("w") as file, redirect_stderr(file):
        failed_rank.watch_ranks(started)
        started[1].kill()
        time.sleep(60)  # as in a step that does not end


def test_a_killed_rank_is_named_and_all_end(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="rank 0 ended without a result"):
        run_ranks(watched, 1, tmp_path / "log")  # else it returns after its sleep
    assert (tmp_path / "log").read_text() == (
        "error: rank 2 was killed by SIGKILL, so all ranks end\n"
    )
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}/exe").exists()  # gone, or not yet collected


def test_a_rank_of_another_launcher_that_lost_another_says_no_more(
    training: list[str], tmp_path: Path
) -> None:
    """Nobody ends it, so it has the time to say so."""
    options = [*training, *breaking(tmp_path, "raise", 1)]
    first, second = run_ranks(train_command, 2, tmp_path, *options)
    assert (second.code, second.error) == (1, "RuntimeError('broken on purpose')")
    assert (first.code, first.error) == (1, None)
    lost = r"rank 0: error: another rank is gone \(.*by peer.*\)"
    [ours] = [line for line in first.said.splitlines() if "error" in line]
    assert re.fullmatch(lost, ours), first.said
    assert "rank 1" not in second.said
    assert not (tmp_path / "run" / "model").exists()
