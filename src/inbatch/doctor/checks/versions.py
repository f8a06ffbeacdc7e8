"""Who answers, and with which versions of everything that a run depends on."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from inbatch import __version__
from inbatch.doctor.result import Machine, Result, judged
from inbatch.strategies.meeting_place import node_name

PACKAGES = ("torch", "lightning", "transformers")
OPTIONAL = ("deepspeed", "triton", "wandb")
_SAME = "install the same on all nodes"
_SOURCE = Path(__file__).parents[2]
_DRIVER = Path("/proc/driver/nvidia/version")


def arrival(machine: Machine) -> Iterator[Result]:
    """Every rank answers; the first check, so that a rank that does not is named at once."""
    host = node_name()
    value = f"rank {machine.rank} of {machine.world_size}, on {host}"
    yield Result("process", value, data={"host": host, "rank": machine.rank})


def versions(machine: Machine) -> Iterator[Result]:
    """Python, the packages, and what is below torch; ranks must have the same."""
    found = {
        "inbatch": f"{__version__}, code {code_digest(_SOURCE)}",
        "python": platform.python_version(),
    }
    for name, version in found.items():
        yield Result(name, version, data={"versions": {name: version}}, same=_SAME)
    wanted = wanted_versions()
    for name in (*PACKAGES, *OPTIONAL):
        yield version_of(name, installed(name), wanted.get(name, ""))
    below = {
        "NVIDIA driver": driver_version(),
        "CUDA": torch.version.cuda,
        "NCCL": nccl_version(machine.device),
    }
    for name, known in below.items():
        data = {"versions": {name: known}}
        yield Result(name, known or "none", None if known is None else True, data=data, same=_SAME)


def version_of(name: str, found: str | None, wanted: str) -> Result:
    """Judge a version by what this package asks for.

    Args:
        name: of the package.
        found: its version; None where it is not installed.
        wanted: such as ``>=2.11,<2.14``; empty for any.
    """
    data = {"versions": {name: found}}
    if found is None and name in OPTIONAL:
        return Result(name, "not installed (optional)", None, data=data, same=_SAME)
    if found is None:
        sentence = f"{name} is not installed: run pip install '{name}{wanted}'"
        return Result(name, "not installed", False, sentence, data, _SAME)
    sentence = ""
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        sentence = (
            f"{name} is {found}, and inbatch needs {wanted}: run pip install '{name}{wanted}'"
        )
    return judged(name, found, sentence, data=data, same=_SAME)


def installed(name: str) -> str | None:
    """Version of a package, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def wanted_versions() -> dict[str, str]:
    """What the metadata of this package asks for, extras included; nothing in a bare checkout."""
    try:
        required = map(Requirement, metadata.requires("inbatch") or [])
    except metadata.PackageNotFoundError:
        return {}
    return {each.name: str(each.specifier) for each in required}


def driver_version() -> str | None:
    """Version of the NVIDIA kernel driver; None where none is loaded."""
    if not _DRIVER.exists():
        return None
    found = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", _DRIVER.read_text())
    return found[1] if found else "unknown"


def code_digest(folder: Path) -> str:
    """Eight digits of the source below a folder; nodes with copies of their own may have older ones."""
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def nccl_version(device: torch.device) -> str | None:
    """Version of the NCCL that torch carries; None on a CPU."""
    if device.type != "cuda" or not torch.distributed.is_nccl_available():
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))
