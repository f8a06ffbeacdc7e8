"""`hydra/launcher=array`. Hydra takes plugins from packages below `hydra_plugins` only."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from inbatch import compat
from inbatch.errors import ConfigError


class OneTrial(Launcher):
    """Runs one trial of a sweep, under its own number: a task of a job array runs its trial.

    Args:
        trial: number of the trial, from 0.
    """

    def __init__(self, *, trial: int) -> None:
        self._trial = trial
        self._launcher = compat.serial_launcher()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Hand on what Hydra gives."""
        self._launcher.setup(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the trial, if it is one of these.

        Raises:
            ConfigError: the sweep has no such trial.
        """
        if not 0 <= self._trial < len(job_overrides):
            raise ConfigError(
                "hydra.launcher.trial",
                f"is not one of the {len(job_overrides)} trials of this sweep",
                f"set --array=0-{len(job_overrides) - 1}",
                value=self._trial,
            )
        trial = [job_overrides[self._trial]]
        done: Sequence[JobReturn] = self._launcher.launch(trial, self._trial)
        return done
