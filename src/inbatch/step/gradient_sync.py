"""When gradients are reduced over ranks: once per optimizer step, in its last backward or after it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import final

from torch import Tensor

from inbatch.gather import average_gradients
from inbatch.gradcache import Collectives


class GradientSync(ABC):
    """Decides for each backward of an optimizer step whether its gradients are reduced over ranks."""

    @property
    def collectives(self) -> Collectives | None:
        """Those of passes in which all ranks take part, where passes that fail can be repeated."""
        return None

    def start(self) -> None:  # noqa: B027 - most strategies have nothing to do here
        """Called before the first backward of an optimizer step."""

    @abstractmethod
    def backward(self, last: bool) -> AbstractContextManager[None]:
        """Context of one backward; `last` marks the final one of the optimizer step."""

    def finish(self) -> None:  # noqa: B027
        """Called after the last backward of an optimizer step."""


@final
class NoSync(GradientSync):
    """One process: nothing to reduce."""

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """Do nothing."""
        yield


@final
class AverageGradients(GradientSync):
    """Average whole gradients after the last backward, for a loop without a strategy.

    Args:
        parameters: those that are trained, in the same order on all ranks.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """Do nothing: gradients stay on their rank until the end of the step."""
        yield

    def finish(self) -> None:
        """One all-reduce per parameter."""
        average_gradients(self._parameters)
