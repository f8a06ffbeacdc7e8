"""Packages of which a start needs next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, final


class PartOfPackage(ModuleType):
    """A package of which some names are there; asked for another one, it loads the rest.

    on_load: called once the rest is there.
    """

    on_load: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.load()
        return getattr(self, name)

    def load(self) -> None:
        """Load the rest; from then on this is a module like any other."""
        spec, on_load = self.__spec__, self.on_load
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        if on_load is not None:
            on_load()


@final
class Submodules(MetaPathFinder, Loader):
    """Loads the whole package ahead of a module of it, since its modules need one another in its order."""

    def __init__(self, part: PartOfPackage) -> None:
        self._part = part

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Load the package if the module is one of it."""
        if fullname.startswith(f"{self._part.__name__}.") and isinstance(self._part, PartOfPackage):
            self._part.load()
            return ModuleSpec(fullname, self) if fullname in sys.modules else None
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, which is loaded."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It has run."""


def part_of(
    name: str, names: Mapping[str, Any], *, file: Path | None = None
) -> PartOfPackage | None:
    """A part of a package or module, in its place; None where the whole is loaded or not installed.

    Args:
        name: its name.
        names: what is there before the rest is loaded.
        file: where it lies, if the package around it is not to be loaded to find it.
    """
    if name in sys.modules:
        return None
    spec = spec_from_file_location(name, file) if file else find_spec(name)
    if spec is None:
        return None
    part = module_from_spec(spec)
    part.__class__ = PartOfPackage
    assert isinstance(part, PartOfPackage)
    vars(part).update(names)
    sys.modules[name] = part
    package, _, last = name.rpartition(".")
    if package in sys.modules:
        setattr(sys.modules[package], last, part)
    return part


def forwarded(module: str, name: str) -> Callable[..., Any]:
    """A function that stands for one of a part: calling it loads the rest."""

    def call(*args: Any, **named: Any) -> Any:
        part = sys.modules[module]
        if isinstance(part, PartOfPackage):
            part.load()
        return getattr(part, name)(*args, **named)

    return call
