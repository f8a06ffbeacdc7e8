"""`hydra/launcher=array`. Hydra takes plugins from packages below `hydra_plugins` only."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from inbatch import compat
from inbatch.errors import ConfigError


class OnePoint(Launcher):
    """Runs one point of a sweep, under its own number: a task of a job array runs its point.

    Args:
        point: number of the point, from 0.
    """

    def __init__(self, *, point: int) -> None:
        self._point = point
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
        """Run the point, if it is one of these.

        Raises:
            ConfigError: the sweep has no such point.
        """
        if not 0 <= self._point < len(job_overrides):
            raise ConfigError(
                "hydra.launcher.point",
                f"is not one of the {len(job_overrides)} trials of this sweep",
                f"set --array=0-{len(job_overrides) - 1}",
                value=self._point,
            )
        point = [job_overrides[self._point]]
        done: Sequence[JobReturn] = self._launcher.launch(point, self._point)
        return done
