"""How fast the output folder takes and gives bytes, and whether all ranks see the same one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from inbatch.doctor.result import Machine, Result, judged
from inbatch.gather import barrier, max_over_ranks, rank_and_world_size

MIB = 2**20
SIZE, BLOCK = 64 * MIB, 4 * MIB
BUDGET_S = 3.0  # after which no further block is written
SLOWEST = 10 * MIB  # bytes a second; a checkpoint of a gigabyte then takes minutes
SEEN_S = 5.0  # in which another node sees a new file
_NETWORK = re.compile(
    r"nfs4?|lustre|beegfs|gpfs|cifs|smb3?|ceph|9p|afs|orangefs|pvfs2|wekafs|panfs|virtiofs|fuse\..+"
)


def storage(machine: Machine) -> Iterator[Result]:
    """Write and read a file in the output folder."""
    folder = machine.output_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written, read = measure(folder / f".doctor-{os.getpid()}-{machine.rank}")
    except OSError as error:
        sentence = (
            f"output_dir={str(folder)!r} cannot be written ({error.strerror}): "
            "set a folder that can be, with free space"
        )
        yield Result("output folder", "cannot be written", False, sentence)
        return
    kind = file_system(folder, Path("/proc/self/mountinfo"))
    where = "network" if is_network(kind) else "local"
    value = f"write {written / MIB:,.0f}, read {speed(read)}, {kind} ({where})"
    data = {"file_system": kind, "is_network": is_network(kind)}
    data |= {"write_bytes_per_s": written, "read_bytes_per_s": read}
    yield judged("output folder", value, too_slow(folder, written), data={"storage": data})


def measure(path: Path) -> tuple[float, float]:
    """Bytes a second of writing a file to the disk and of reading it back; the file is removed.

    Raises:
        OSError: it cannot be written.
    """
    block, written = os.urandom(BLOCK), 0  # random, since some file systems compress
    try:
        start = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            while written < SIZE and time.perf_counter() - start < BUDGET_S:
                written += file.write(block)
            os.fsync(file.fileno())
        write_s = time.perf_counter() - start
        with path.open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):  # so that it is not read from memory
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            while file.read(BLOCK):
                pass
            read_s = time.perf_counter() - start
    finally:
        with suppress(OSError):
            path.unlink()
    return written / write_s, written / read_s


def too_slow(folder: Path, written: float) -> str:
    """Say that checkpoints would take long."""
    if written >= SLOWEST:
        return ""
    return (
        f"output_dir={str(folder)!r} takes {speed(written)}, so that a checkpoint of 1 GiB takes "
        f"{2**30 / written / 60:.0f} minutes: set a folder on faster storage"
    )


def file_system(folder: Path, mounts: Path) -> str:
    """Type of the file system that a folder is on; "unknown" where the system does not tell.

    Args:
        folder: an existing one.
        mounts: in the format of /proc/self/mountinfo.
    """
    if not mounts.exists():
        return "unknown"
    place, best, kind = folder.resolve(), -1, "unknown"
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        mounted = Path(before.split()[4].replace("\\040", " "))
        depth = len(mounted.parts)
        if place.is_relative_to(mounted) and depth >= best:  # a later mount hides an earlier one
            best, kind = depth, after.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Whether it looks like a file system of another machine."""
    return _NETWORK.fullmatch(kind) is not None


def speed(bytes_per_s: float) -> str:
    """As ``512 MiB/s``."""
    return f"{bytes_per_s / MIB:,.0f} MiB/s"


def same_folder(machine: Machine) -> Iterator[Result]:
    """Rank 0 writes a file, which the other ranks look for: they must share the output folder."""
    if rank_and_world_size()[1] == 1:
        return
    token = int.from_bytes(os.urandom(4), "big") + 1 if machine.rank == 0 else 0
    path = machine.output_dir / f".doctor-{token}"
    if machine.rank == 0:
        try:
            path.touch()
        except OSError:  # of which the check of the storage speaks
            token = 0
    (token,) = max_over_ranks([token], machine.device)
    if token == 0:
        yield Result("seen by all ranks", "not known: rank 0 cannot write", None)
        return
    # Nothing here may raise on one rank alone: the others would wait for it.
    path, deadline = machine.output_dir / f".doctor-{token}", time.monotonic() + SEEN_S
    while not (seen := os.path.exists(path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    barrier()
    if machine.rank == 0:
        path.unlink(missing_ok=True)
    sentence = "" if seen else not_shared(machine.output_dir)
    yield judged("seen by all ranks", "yes" if seen else "no", sentence)


def not_shared(folder: Path) -> str:
    """Say that nodes have folders of their own."""
    return (
        f"a file that rank 0 has written to output_dir={str(folder)!r} is not there: "
        "set a folder on a file system that all nodes share"
    )
