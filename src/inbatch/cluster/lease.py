"""The lease on a folder: one run at a time writes to it, wherever it was started.

The lease is a file that says who holds it, and that the holder touches every few seconds. It is made by a
hard link, which is atomic on local disks, NFS and Lustre. Its age is read off the file server's clock, so
that hosts need not agree on the time. A holder that is dead loses it: at once where that can be seen (its
process is gone from this host, its Slurm job has ended), else when it has not touched the file for `STALE_S`.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from inbatch.cluster.ask_slurm import ask_slurm
from inbatch.cluster.process import Process, is_gone, this_process
from inbatch.errors import ConfigError
from inbatch.files import writing

RENEW_S = 3.0
STALE_S = 30.0  # ten renewals: a file server may hang for some of them


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease.

    id: of this lease, unlike any other.
    process: that holds it.
    since: when it was taken, for a reader.
    """

    id: str
    process: Process
    since: str

    def __str__(self) -> str:
        """As ``process 71 on node3, since 2026-01-31 12:00:00``."""
        return f"{self.process}, since {self.since}"


@final
class Lease:
    """A lease that this process holds, and renews in a thread until it is released."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path = path
        self._holder = holder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that it is still held, before something is written.

        Raises:
            ConfigError: another run has taken it, since this process had stood still.
        """
        found = _read(self._path)
        if found is None or found.id != self._holder.id:
            by = "nobody holds it now" if found is None else str(found)
            raise ConfigError(
                "output_dir",
                f"was taken over while this process stood still ({by})",
                "end one of the two runs",
                value=str(self._path.parent),
            )

    def release(self) -> None:
        """Give it back, unless another run has taken it."""
        self._ended.set()
        self._thread.join()
        found = _read(self._path)
        if found is not None and found.id == self._holder.id:
            self._path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with suppress(OSError):  # a folder that cannot be written ends the run where it writes
                os.utime(self._path)


@contextmanager
def hold(path: Path) -> Iterator[Lease]:
    """Hold the lease in the file `path` for the block.

    Waits a few seconds where nothing tells whether its holder lives.

    Raises:
        ConfigError: another process holds it.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    me = Holder(uuid.uuid4().hex, this_process(), time.strftime("%Y-%m-%d %H:%M:%S"))
    lease = Lease(path, take(path, me))
    try:
        yield lease
    finally:
        lease.release()


def take(path: Path, me: Holder, *, stale_s: float = STALE_S) -> Holder:
    """Make the file of a lease, or take it over from a holder that is dead; return `me`.

    Raises:
        ConfigError: its holder lives.
    """
    # Not named as unfinished files are, which the holder removes while others may wait here.
    mine = path.with_name(f".{path.name}.{me.id}.taker")
    try:
        with writing(path):
            mine.write_text(json.dumps(asdict(me)))
        while not _link(mine, path):
            found = _read(path)
            if found is None:  # released between the two
                continue
            _wait_for_end(path, found, mine, stale_s=stale_s)
            _replace(path, found, mine, stale_s=stale_s)
        return me
    finally:
        mine.unlink(missing_ok=True)


def _link(mine: Path, path: Path) -> bool:
    """Make the lease of `mine`, if there is none; true if it is there."""
    try:
        os.link(mine, path)
    except FileExistsError:
        found, own = _read(path), _read(mine)
        return found is not None and found == own  # made by `_replace`
    return True


def _wait_for_end(path: Path, found: Holder, probe: Path, *, stale_s: float) -> None:
    """Return once a holder is known to be dead, or has released the lease.

    Raises:
        ConfigError: it has shown that it lives.
    """
    if is_gone(found.process) or job_has_ended(found.process.job):
        return
    touched = _touched(path)
    while touched is not None:
        os.utime(probe)
        age = probe.stat().st_mtime - touched
        if age > stale_s:
            return
        if found.process.is_here or _touched(path) != touched:
            raise ConfigError(
                "output_dir",
                f"is in use by another run ({found})",
                "wait for its end, stop it, or set another output_dir",
                value=str(path.parent),
            )
        time.sleep(0.2)


def _replace(path: Path, found: Holder, mine: Path, *, stale_s: float) -> None:
    """Put `mine` in place of a dead holder's file. Of several takers, the one that makes the marker does."""
    marker = path.with_name(f".{path.name}.{found.id}.taken")
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        with suppress(FileNotFoundError):
            os.utime(mine)
            if mine.stat().st_mtime - marker.stat().st_mtime > stale_s:  # its taker has died too
                marker.unlink()
        time.sleep(0.05)
        return
    try:
        now = _read(path)
        if now is not None and now.id == found.id:
            copy = mine.with_suffix(".copy")
            shutil.copyfile(mine, copy)
            os.replace(copy, path)
    finally:
        marker.unlink(missing_ok=True)


def _read(path: Path) -> Holder | None:
    """The holder in the file of a lease; None if there is no such file."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return Holder(values["id"], Process(**values["process"]), values["since"])


def _touched(path: Path) -> float | None:
    """When the file was last touched; None if it is gone. Opening it asks a file server anew."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


def job_has_ended(job: str | None) -> bool:
    """True if Slurm knows that a job runs no longer; False where nobody can tell."""
    if job is None:
        return False
    done = ask_slurm("squeue", "--noheader", "--format=%T", f"--jobs={job}")
    if done.returncode:  # of a job that Slurm has forgotten
        return "Invalid job id" in done.stderr
    return not done.stdout.strip()
