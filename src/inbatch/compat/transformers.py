"""What transformers does while it is imported, for the many models that a run does not use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import final

from inbatch.compat.part_of_package import Submodules, forwarded, part_of


def load_part_of_scipy_optimize() -> None:
    """Load scipy.optimize when it is used: transformers names one function of it, for losses of boxes."""
    name, function = "scipy.optimize", "linear_sum_assignment"
    part = part_of(name, {function: forwarded(name, function)})
    if part is not None:
        sys.meta_path.insert(0, Submodules(part))


def read_models_once() -> None:
    """Have transformers read the files of its models once, and find their names quickly.

    It looks into each of 1,700 files for its ``__all__``, line by line, and does so twice: its cache holds
    128 folders of 560.
    """
    if "transformers" not in sys.modules:
        sys.meta_path.insert(0, _After("transformers.utils.import_utils", _read_once))


def _read_once(module: ModuleType) -> None:
    reads = module.create_import_structure_from_path
    module.create_import_structure_from_path = lru_cache(maxsize=None)(reads.__wrapped__)  # type: ignore[attr-defined]
    module.fetch__all__ = from_last_line(module.fetch__all__)  # type: ignore[attr-defined]


def from_last_line(names_in: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """`fetch__all__`, which takes the last line that begins with ``__all__``, handed the text from there."""

    def names(content: str) -> list[str]:
        start = content.rfind("\n__all__") + 1
        return names_in(content[start:]) if content.startswith("__all__", start) else []

    return names


@final
class _After(MetaPathFinder):
    """Does something with a module as soon as it has been imported."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_both(module: ModuleType) -> None:
            run(module)
            self._then(module)

        spec.loader.exec_module = run_both  # type: ignore[method-assign]
        return spec
