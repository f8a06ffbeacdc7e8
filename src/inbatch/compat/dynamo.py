"""torch._dynamo, which traces programs for torch.compile: loaded by runs that compile, not by all.

Lightning, transformers and every optimizer name it, and it takes a fifth of a command's start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any, final

from inbatch.compat.part_of_package import PartOfPackage, part_of

_MARKS = ("assume_constant_result", "allow_in_graph")  # decorators for functions of compiled graphs


class _Late(type):
    """Of a class that stands for one of torch._dynamo's: has its instances, once there can be any."""

    def __instancecheck__(cls, instance: object) -> bool:
        real = vars(sys.modules["torch._dynamo"]).get(cls.__name__, cls)
        return real is not cls and isinstance(instance, real)


class OptimizedModule(metaclass=_Late):
    """Stands for the class of compiled modules, of which Lightning asks whether it has one."""


@final
class _Submodules(MetaPathFinder, Loader):
    """Loads the whole package ahead of a module of it, since its modules need one another in its order."""

    def __init__(self, part: PartOfPackage) -> None:
        self._part = part

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.startswith("torch._dynamo.") and isinstance(self._part, PartOfPackage):
            self._part.load()
            return ModuleSpec(fullname, self) if fullname in sys.modules else None
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It has run."""


@final
class _Names:
    """The names of torch._dynamo that others use while they are imported."""

    def __init__(self, part: PartOfPackage) -> None:
        self._part = part
        self._noted: list[tuple[str, Any]] = []

    def noting(self, name: str) -> Callable[[Any], Any]:
        """A decorator that notes what is to be said of a function to the decorator of this name."""

        def mark(function: Any) -> Any:
            self._noted.append((name, function))
            return function

        return mark

    def say(self) -> None:
        """Hand what was noted to the decorators."""
        for name, function in self._noted:
            getattr(self._part, name)(function)

    def disable(self, fn: Any = None, recursive: bool = True, **options: Any) -> Any:
        """Hide a function from tracing; while nothing can be traced, it is only called."""
        if fn is None:
            return partial(self.disable, recursive=recursive, **options)
        if not isinstance(fn, FunctionType):
            self._part.load()
            return self._part.disable(fn, recursive, **options)
        hidden: Any = None

        @wraps(fn)
        def called(*args: Any, **named: Any) -> Any:
            nonlocal hidden
            if isinstance(self._part, PartOfPackage):
                return fn(*args, **named)
            hidden = hidden or self._part.disable(fn, recursive, **options)
            return hidden(*args, **named)

        return called


def load_dynamo_when_needed() -> None:
    """Have torch._dynamo loaded when the first of its names is needed that does something."""
    spec = None if "torch._dynamo" in sys.modules else find_spec("torch._dynamo")
    if spec is None:
        return
    part = part_of(spec)
    names = _Names(part)
    vars(part).update({name: names.noting(name) for name in _MARKS})
    vars(part).update(
        OptimizedModule=OptimizedModule,
        disable=names.disable,
        graph_break=lambda *args, **named: None,  # optimizers' steps begin with it
        on_load=names.say,
    )
    sys.modules["torch._dynamo"] = part
    vars(import_module("torch"))["_dynamo"] = part
    # Needs no other module of it; transformers takes a class from it.
    import_module("torch._dynamo._trace_wrapped_higher_order_op")
    sys.meta_path.insert(0, _Submodules(part))
