"""Optuna proposes trials. The only file that imports it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from inbatch.errors import ConfigError
from inbatch.export.metrics_log import Series
from inbatch.sweep.trials import Mode, Trial

if TYPE_CHECKING:
    from optuna.trial import Trial as OptunaTrial

Kind = Literal["tpe", "random"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some texts, each a value of the command line."""

    options: tuple[str, ...]

    def propose(self, proposal: OptunaTrial, name: str) -> str:
        """A value for the command line."""
        return str(proposal.suggest_categorical(name, self.options))


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
            raise ConfigError(f"interval({self.low:g}, {self.high:g})", "is empty", f"give {rule}")

    def propose(self, proposal: OptunaTrial, name: str) -> str:
        """A value for the command line."""
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return str(
                proposal.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
            )
        return repr(proposal.suggest_float(name, self.low, self.high, step=self.step, log=self.log))


Space = Mapping[str, Choice | Span]


class Study:
    """Proposes trials and learns from their results.

    Args:
        space: what to search, by parameter.
        mode: whether a larger or a smaller metric is better.
        kind: "tpe" learns from the trials so far (Bergstra et al. 2011, "Algorithms for
            Hyper-Parameter Optimization"), "random" does not.
        seed: of the proposals.
        startup_trials: random trials before "tpe" learns.

    Raises:
        ConfigError: optuna is not installed, an unknown kind, or nothing to search.
    """

    def __init__(
        self, space: Space, *, mode: Mode, kind: Kind, seed: int | None, startup_trials: int
    ) -> None:
        try:
            import optuna
        except ImportError:
            raise ConfigError(
                "hydra/sweeper", "needs optuna", "run pip install 'inbatch[sweep]'", value="search"
            ) from None
        if not space:
            raise ConfigError(
                "hydra/sweeper",
                "has nothing to search",
                "give a parameter an interval or choices, as 'optimizer.lr=tag(log, interval(1e-5, 1e-3))'",
                value="search",
            )
        samplers: dict[str, Callable[[], Any]] = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        }
        if kind not in samplers:
            raise ConfigError(
                "hydra.sweeper.sampler", "is not known", "set tpe or random", value=kind
            )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = optuna.study.StudyDirection
        direction = directions.MAXIMIZE if mode == "max" else directions.MINIMIZE
        self._study = optuna.create_study(direction=direction, sampler=samplers[kind]())
        self._states = optuna.trial.TrialState
        self._space = space

    def ask(self, count: int) -> list[tuple[OptunaTrial, dict[str, str]]]:
        """Some new trials, each with its parameters for the command line."""
        proposals = [self._study.ask() for _ in range(count)]
        return [
            (
                proposal,
                {name: values.propose(proposal, name) for name, values in self._space.items()},
            )
            for proposal in proposals
        ]

    def tell(self, proposal: OptunaTrial, trial: Trial | None, course: Series) -> None:
        """Record the result of a trial.

        Args:
            proposal: as given by `ask`.
            trial: None where it left no file.
            course: its metric over the steps.
        """
        value = trial.result.value if trial is not None and trial.succeeded else None
        if trial is None or value is None:
            self._study.tell(proposal, state=self._states.FAIL)
        elif trial.status == "pruned":
            for step, at_step in zip(course.steps, course.values, strict=True):
                proposal.report(at_step, step)
            self._study.tell(proposal, state=self._states.PRUNED)
        else:
            self._study.tell(proposal, value)


def batches(total: int, size: int) -> Sequence[int]:
    """Sizes of the batches in which trials are proposed: `size`, then the rest."""
    return [min(size, total - start) for start in range(0, total, size)]
