"""Packages of which a start needs next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


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


def part_of(spec: ModuleSpec) -> PartOfPackage:
    """An empty part of a package, not yet among the loaded modules."""
    part = module_from_spec(spec)
    part.__class__ = PartOfPackage
    assert isinstance(part, PartOfPackage)
    return part
