"""Runs all checks on all ranks in step, and writes what they found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.distributed import Store, destroy_process_group, is_initialized

from inbatch.console import make_console, print_plain
from inbatch.doctor.board import Board
from inbatch.doctor.config import DoctorConfig
from inbatch.doctor.report import Finding, Report
from inbatch.doctor.result import Check, Machine, Result, one_line, perform
from inbatch.doctor.text import lines, wrapped
from inbatch.doctor.watch import Watch
from inbatch.errors import ConfigError
from inbatch.files import write_json
from inbatch.strategies import find_world
from inbatch.strategies.meeting_place import open_stores, this_place

REPORT = "doctor.json"


def doctor(config: DoctorConfig, checks: Sequence[Check]) -> int:
    """Run checks on this process and all others of its launcher; rank 0 prints and writes.

    Returns:
        The exit code: 1 on rank 0 if something does not hold.

    Raises:
        ConfigError: the device is not there, or rank 0 is not.
    """
    board_store, watch_store, group_store = open_stores(3, timeout_s=config.timeout_s)
    machine = this_machine(config, group_store)
    report = Report(machine.world_size)
    start = time.monotonic()

    def give_up(number: int, found: dict[int, list[Result]], problem: str) -> None:
        section = checks[number].section
        report.add(section, found)
        report.findings.append(Finding(section, "all ranks answer", "no", False, (problem,)))
        conclude(report, machine, seconds=time.monotonic() - start)

    place = {"rank": machine.rank, "world_size": machine.world_size}
    watch = Watch(
        Board(watch_store, **place),
        **place,
        names=[check.name for check in checks],
        timeout_s=config.timeout_s,
        give_up=give_up,
    )
    with watch:
        run_checks(checks, machine, Board(board_store, **place), watch, report)
    code = conclude(report, machine, seconds=time.monotonic() - start) if machine.rank == 0 else 0
    if is_initialized():
        destroy_process_group()
    return code


def this_machine(config: DoctorConfig, store: Store) -> Machine:
    """This process and its device, which becomes the current one.

    Raises:
        ConfigError: the device is not there.
    """
    try:
        world = find_world(config.device, "auto", 1)
    except ConfigError as error:
        raise error.under(error.key.replace("trainer.accelerator", "device")) from None
    place = this_place()
    device = torch.device(world.accelerator)
    if device.type == "cuda":
        device = torch.device("cuda", place.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return Machine(
        device=device,
        asked=config.device != "auto",
        rank=place.rank,
        world_size=place.world_size,
        local_rank=place.local_rank,
        ranks_here=world.devices if place.world_size > 1 else 1,
        output_dir=Path(config.output_dir),
        timeout_s=config.timeout_s,
        store=store,
    )


def run_checks(
    checks: Sequence[Check], machine: Machine, board: Board, watch: Watch, report: Report
) -> None:
    """Run one check after the other, each on all ranks at a time; the report is rank 0's."""
    for number, check in enumerate(checks):
        watch.begin(number)
        board.post(number, perform(check, machine))
        watch.answered()
        if machine.rank == 0:
            report.add(check.section, board.collect(number))
            board.mark("go", number)
        elif number < len(checks) - 1:
            board.wait_for_mark("go", number, rank=0)


def conclude(report: Report, machine: Machine, *, seconds: float) -> int:
    """Print the table, write doctor.json, and return the exit code."""
    console = make_console()
    for line in lines(report):
        print_plain(line, console=console)
    path = machine.output_dir / REPORT
    content = {"seconds": round(seconds, 1), "world_size": machine.world_size, **report.as_json()}
    try:
        write_json(path, content)
        written = f"written: {path}"
    except (OSError, ConfigError) as error:
        written = f"not written: {one_line(error)}"
    for line in wrapped(f"{seconds:.0f} s; {written}"):
        print_plain(line, console=console)
    return 1 if report.problems or written.startswith("not") else 0
