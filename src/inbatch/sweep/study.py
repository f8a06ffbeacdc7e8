"""Optuna proposes points. The only file that imports it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from inbatch.errors import ConfigError
from inbatch.export.metrics_log import Series
from inbatch.sweep.points import Mode, Point

if TYPE_CHECKING:
    from optuna.trial import Trial

Kind = Literal["tpe", "random"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some texts, each a value of the command line."""

    options: tuple[str, ...]

    def propose(self, trial: Trial, name: str) -> str:
        """A value for the command line."""
        return str(trial.suggest_categorical(name, self.options))


@dataclass(frozen=True, slots=True)
class Span:
    """A number from `low` to `high`, both included.

    step: distance of the values; None for any between.
    log: spread by the logarithm.
    whole: whole numbers.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.log and self.low <= 0):
            rule = "the first above 0 for a logarithm" if self.log else "the smaller one first"
            raise ConfigError(f"interval({self.low:g}, {self.high:g}) is none: give {rule}")

    def propose(self, trial: Trial, name: str) -> str:
        """A value for the command line."""
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return str(
                trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
            )
        return repr(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))


Space = Mapping[str, Choice | Span]


class Study:
    """Asks for points and is told how they were.

    Args:
        space: what to search, by parameter.
        mode: whether a larger or a smaller metric is better.
        kind: "tpe" learns from the points so far (Bergstra et al. 2011, "Algorithms for
            Hyper-Parameter Optimization"), "random" does not.
        seed: of the proposals.
        startup_points: random points before "tpe" learns.

    Raises:
        ConfigError: optuna is not installed, an unknown kind, or nothing to search.
    """

    def __init__(
        self, space: Space, *, mode: Mode, kind: Kind, seed: int | None, startup_points: int
    ) -> None:
        try:
            import optuna
        except ImportError:
            raise ConfigError(
                "hydra/sweeper=search needs optuna: pip install 'inbatch[sweep]'"
            ) from None
        if not space:
            raise ConfigError(
                "hydra/sweeper=search has nothing to search: give a parameter an interval or choices, "
                "as 'optimizer.lr=tag(log, interval(1e-5, 1e-3))'"
            )
        samplers: dict[str, Callable[[], Any]] = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_points),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        }
        if kind not in samplers:
            raise ConfigError(f"hydra.sweeper.sampler={kind!r} is not known: set tpe or random")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = optuna.study.StudyDirection
        direction = directions.MAXIMIZE if mode == "max" else directions.MINIMIZE
        self._study = optuna.create_study(direction=direction, sampler=samplers[kind]())
        self._states = optuna.trial.TrialState
        self._space = space

    def ask(self, count: int) -> list[tuple[Trial, dict[str, str]]]:
        """Some new points, each with its parameters for the command line."""
        trials = [self._study.ask() for _ in range(count)]
        return [
            (trial, {name: values.propose(trial, name) for name, values in self._space.items()})
            for trial in trials
        ]

    def tell(self, trial: Trial, point: Point | None, course: Series) -> None:
        """How a point was.

        Args:
            trial: what `ask` has given.
            point: None where it has left nothing.
            course: its metric over the steps.
        """
        value = point.result.value if point is not None and point.succeeded else None
        if point is None or value is None:
            self._study.tell(trial, state=self._states.FAIL)
        elif point.status == "pruned":
            for step, at_step in zip(course.steps, course.values, strict=True):
                trial.report(at_step, step)
            self._study.tell(trial, state=self._states.PRUNED)
        else:
            self._study.tell(trial, value)


def batches(total: int, size: int) -> Sequence[int]:
    """How many points to propose at a time: `size`, and what is left."""
    return [min(size, total - start) for start in range(0, total, size)]
