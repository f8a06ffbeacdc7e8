"""torch._dynamo, which traces programs for torch.compile: loaded by runs that compile, not by all.

Lightning, transformers and every optimizer name it, and it takes a fifth of a command's start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from types import FunctionType
from typing import Any, final

from inbatch.compat.part_of_package import PartOfPackage, Submodules, part_of

_MARKS = ("assume_constant_result", "allow_in_graph")  # decorators for functions of compiled graphs


class _Late(type):
    """Of a class that stands for one of torch._dynamo's: has its instances, once there can be any."""

    def __instancecheck__(cls, instance: object) -> bool:
        real = vars(sys.modules["torch._dynamo"]).get(cls.__name__, cls)
        return real is not cls and isinstance(instance, real)


class OptimizedModule(metaclass=_Late):
    """Stands for the class of compiled modules, of which Lightning asks whether it has one."""


@final
class _EvalFrame:
    """Stands for the module of that class, in which accelerate asks for it before a model is saved."""

    OptimizedModule = OptimizedModule

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module("torch._dynamo.eval_frame"), name)


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
    import torch

    known = {"OptimizedModule": OptimizedModule, "eval_frame": _EvalFrame()}
    part = part_of("torch._dynamo", known)
    if part is None:
        return
    names = _Names(part)
    vars(part).update({name: names.noting(name) for name in _MARKS})
    vars(part).update(
        disable=names.disable,
        graph_break=lambda *args, **named: None,  # optimizers' steps begin with it
        on_load=names.say,
    )
    # Needs no other module of it; transformers takes a class from it.
    import_module("torch._dynamo._trace_wrapped_higher_order_op")
    sys.meta_path.insert(0, Submodules(part))
    torch.use_deterministic_algorithms = _without_inductor(torch.use_deterministic_algorithms)


def _without_inductor(choose: Callable[..., None]) -> Callable[..., None]:
    """`torch.use_deterministic_algorithms` as every trainer calls it: it tells inductor, so it loads it.

    Inductor's own setting is off before it is told.
    """

    @wraps(choose)
    def use(mode: bool, *, warn_only: bool = False) -> None:
        import torch

        if mode or "torch._inductor" in sys.modules:
            choose(mode, warn_only=warn_only)
        else:
            torch._C._set_deterministic_algorithms(False, warn_only=warn_only)

    return use
