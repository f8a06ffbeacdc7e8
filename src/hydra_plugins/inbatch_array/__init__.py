"""`hydra/launcher=array`. Hydra takes plugins from packages below `hydra_plugins` only."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn

from inbatch.errors import ConfigError


class OnePoint(BasicLauncher):
    """Runs one point of a sweep, under its own number: a task of a job array runs its point.

    Args:
        point: number of the point, from 0.
    """

    def __init__(self, *, point: int) -> None:
        super().__init__()
        self._point = point

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the point, if it is one of these.

        Raises:
            ConfigError: the sweep has no such point.
        """
        if not 0 <= self._point < len(job_overrides):
            raise ConfigError(
                f"hydra.launcher.point={self._point} is no point of this sweep of {len(job_overrides)}: "
                f"set --array=0-{len(job_overrides) - 1}"
            )
        done: Sequence[JobReturn] = super().launch([job_overrides[self._point]], self._point)
        return done
