"""Kills runs at seeded moments, resumes them, and compares with a run that was never killed, bit for bit.

    python scripts/kill_resume.py --kills 10
    python scripts/kill_resume.py --kills 2 --runs ddp/2

For each combination of strategy and ranks one run goes through; another, of the same settings, is killed
(SIGKILL to all its processes) as often as asked, each time a random while after some further rows of its
metrics, and started again by the same command. Weights, optimizer state and rows of metrics must then be the
same. Prints a markdown table; exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

RUNS = ("auto/1", "ddp/2", "fsdp/2", "deepspeed_stage_1/2")
STEPS = 40
WORDS = [f"word{n}" for n in range(200)]
SETTINGS = [
    "encoder=tiny",
    "loss=cached_multiple_negatives_ranking",
    "global_batch_size=16",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=-1",
    f"trainer.max_steps={STEPS}",
    "trainer.log_every_steps=3",
    "checkpoint.every_n_steps=4",
    "evaluation.every_steps=5",
]
CLOCKS = ("time_s", "perf/")  # what two runs need not have in common


class Outcome(NamedTuple):
    """What a run leaves."""

    state: dict[str, Tensor]
    rows: list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=15, help="of each combination")
    parser.add_argument("--runs", nargs="*", default=list(RUNS), help="strategy/ranks")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| strategy | ranks | kills | after steps | weights and optimizer | rows of metrics |")
    print("|---|---|---|---|---|---|")
    differ = False
    for name in args.runs:
        with tempfile.TemporaryDirectory() as folder:
            more = [f"precision={args.precision}"]
            line, same = compare(Path(folder), name, more, kills=args.kills, seed=args.seed)
        print(line, flush=True)
        differ = differ or not same
    sys.exit(int(differ))


def compare(folder: Path, name: str, more: list[str], *, kills: int, seed: int) -> tuple[str, bool]:
    """Return a line of the table, and whether all is the same."""
    strategy, _, ranks = name.partition("/")
    write_data(folder)
    settings = [*SETTINGS, *more, f"strategy={strategy}", f"trainer.devices={ranks}"]
    settings += [f"data.train={folder / 'train.jsonl'}", f"data.eval={folder / 'dev.jsonl'}"]
    finish(start(settings, folder / "whole"))
    one = outcome(folder / "whole")
    draw = random.Random(f"{name} {seed}")
    steps: list[int] = []
    state = rows = True
    number = 0
    while len(steps) < kills:
        output = folder / f"parts{number}"
        steps += kill_and_resume(settings, output, kills=kills - len(steps), draw=draw)
        other = outcome(output)
        state = state and same_state(one.state, other.state)
        rows = rows and one.rows == other.rows
        number += 1
    words = {True: "identical", False: "DIFFERENT"}
    cells = (strategy, ranks, str(kills), " ".join(map(str, steps)), words[state], words[rows])
    return f"| {' | '.join(cells)} |", state and rows


def kill_and_resume(
    settings: list[str], output: Path, *, kills: int, draw: random.Random
) -> list[int]:
    """Run to the end, killed at most that often; return the last logged step at each kill."""
    killed: list[int] = []
    while True:
        process = start(settings, output)
        rows = len(read_rows(output)) + draw.randint(1, 6)
        pause = draw.random() * 0.3
        if len(killed) == kills or not wait_for_rows(process, output, rows):
            finish(process)
            return killed
        time.sleep(pause)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        killed.append(max((row["step"] for row in read_rows(output)), default=0))


def start(settings: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own."""
    command = [sys.executable, "-m", "inbatch", "train", *settings, f"output_dir={output}"]
    with output.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a run, which must be a good one."""
    if process.wait():
        sys.exit(f"{' '.join(map(str, process.args))} has failed")  # type: ignore[arg-type]


def wait_for_rows(process: subprocess.Popen[bytes], output: Path, number: int) -> bool:
    """Wait until a run has written a row with its process alive; False where it ends before."""
    began = len(read_rows(output))
    while process.poll() is None:
        rows = len(read_rows(output))
        if rows > max(0, number) or rows < began:  # the resumed run has taken up the file
            return True
        time.sleep(0.02)
    return False


def read_rows(output: Path) -> list[dict[str, Any]]:
    """Return the whole rows of metrics that a run has written."""
    path = output / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def outcome(output: Path) -> Outcome:
    """Read what a finished run has left; rows without clocks."""
    last = output / "checkpoints" / "last.ckpt"
    files = sorted(last.rglob("*.pt")) if last.is_dir() else [last]
    state: dict[str, Tensor] = {}
    for file in files:
        found = torch.load(file, map_location="cpu", weights_only=False)
        state |= {f"{file.name}: {name}": value for name, value in tensors(found)}
    rows = [
        {key: value for key, value in row.items() if not key.startswith(CLOCKS)}
        for row in read_rows(output)
    ]
    return Outcome(state, rows)


def tensors(node: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in a checkpoint."""
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from tensors(value, f"{name}.{key}")
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from tensors(value, f"{name}[{number}]")


def same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether all tensors are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def write_data(folder: Path) -> None:
    """Write pairs of made-up texts of many lengths."""
    draw = random.Random(0)
    for name, count in (("train", 200), ("dev", 30)):
        rows = []
        for number in range(count):
            words = draw.choices(WORDS, k=draw.randint(2, 30))
            rows.append({"query": " ".join(words), "positive": f"{' '.join(words[::2])} {number}"})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)


if __name__ == "__main__":
    main()
