"""Several "hosts" on this machine: network namespaces on one bridge, each with a name and an address.

A host shares the file system and the processes of this machine, as nodes of a cluster share their home.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAMS = ("ip", "nsenter", "unshare")


def why_not(programs: Sequence[str] = PROGRAMS) -> str | None:
    """Why hosts, and programs on them, cannot run here; None if they can."""
    missing = [name for name in programs if shutil.which(name, path=search_path()) is None]
    if missing:
        return f"{', '.join(missing)} not found: install iproute2, slurm-wlm and munge"
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "this container may not make network namespaces" if tried.returncode else None


def search_path() -> str:
    """PATH with the folders of system programs, which a user's may lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class Hosts:
    """Context manager: the hosts exist inside it, and what runs on them ends with it.

    Args:
        names: of the hosts; the first has the address .1, and so on.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self._tag = f"ib{secrets.token_hex(3)}"  # the names of namespaces are global
        self._folder = Path(tempfile.mkdtemp(prefix="hosts"))
        self._running: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Hosts:
        switch = self._namespace("switch")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, name in enumerate(self.names, start=1):
            space, port = self._namespace(name), f"port{number}"
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
            _ip(
                "link",
                "add",
                "eth0",
                "netns",
                space,
                "type",
                "veth",
                "peer",
                "name",
                port,
                "netns",
                switch,
            )
            _ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            self._write_names(name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        for name in (*self.names, "switch"):
            _ip("netns", "delete", self._namespace(name))
        shutil.rmtree(self._folder)

    def address(self, name: str) -> str:
        """IP address of a host."""
        return f"10.79.0.{self.names.index(name) + 1}"

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """A command line that runs a command on a host.

        Not `ip netns exec`: that mounts another /sys, without the cgroups that slurmd looks for.
        """
        inside = 'mount --bind "$0" /etc/hosts && exec "$@"'
        net = f"--net=/run/netns/{self._namespace(host)}"
        names = str(self._folder / host)
        return ["nsenter", net, "unshare", "--mount", "sh", "-c", inside, names, *command]

    def start(self, host: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command on a host."""
        process = subprocess.Popen(self.command(host, command), **options)
        self._running.append(process)
        return process

    def cut(self, host: str) -> None:
        """Pull a host's cable."""
        port = f"port{self.names.index(host) + 1}"
        _ip("-n", self._namespace("switch"), "link", "set", port, "down")

    def _namespace(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _write_names(self, host: str) -> None:
        """`/etc/hosts` as a host sees it: this machine's own name stands for that host."""
        lines = [f"127.0.0.1 localhost\n{self.address(host)} {os.uname().nodename}\n"]
        lines += [f"{self.address(name)} {name}\n" for name in self.names]
        (self._folder / host).write_text("".join(lines))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, env={**os.environ, "PATH": search_path()})
