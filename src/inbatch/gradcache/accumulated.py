"""Which gradients a backward has added to before it failed, so that it can be done again for the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor


class Accumulated:
    """The parameters that the backward of the current chunk has reached.

    Args:
        parameters: those that are trained.
        besides: of these, what only the last backward of a batch reaches.
    """

    def __init__(self, parameters: Sequence[Tensor], besides: Sequence[Tensor] = ()) -> None:
        self._parameters = parameters
        self._besides = {id(parameter) for parameter in besides}
        self._reached: set[int] = set()

    def note(self, parameter: Tensor) -> None:
        """The chunk's gradient of this parameter is complete, and has been added."""
        self._reached.add(id(parameter))

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note each parameter whose gradient grows inside."""
        hooks = [p.register_post_accumulate_grad_hook(self.note) for p in self._parameters]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def take(self) -> frozenset[int]:
        """The parameters reached since the last call, by their id."""
        reached, self._reached = frozenset(self._reached), set()
        return reached

    def are_all(self, reached: frozenset[int], *, is_last: bool) -> bool:
        """True if a backward has nothing left to do."""
        wanted = {id(parameter) for parameter in self._parameters}
        return (wanted if is_last else wanted - self._besides) <= reached

    @contextmanager
    def only_others(self, reached: frozenset[int]) -> Iterator[None]:
        """Inside, forwards and backwards pass over the parameters that were reached."""
        frozen = [p for p in self._parameters if id(p) in reached]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
