"""`hydra/sweeper=search`. Hydra takes plugins from packages below `hydra_plugins` only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from inbatch.errors import ConfigError
from inbatch.export.metrics_log import Series
from inbatch.sweep.pruning import evaluated
from inbatch.sweep.study import Choice, Span, Study, batches
from inbatch.sweep.trials import read_trial


class OptunaSearch(Sweeper):
    """Searches the parameters whose values are choices, ranges or intervals on the command line.

    Optuna learns of each trial when its batch has ended: its best evaluation, or that it was pruned
    (with its values so far) or has failed.

    Args:
        trials: how many to try.
        at_once: trials that are proposed and launched together; more than one is for launchers that
            run trials side by side.
        sampler: "tpe" or "random".
        startup_trials: random trials before "tpe" learns from them.
        seed: of the proposals.
    """

    def __init__(
        self,
        *,
        trials: int = 20,
        at_once: int = 1,
        sampler: str = "tpe",
        startup_trials: int = 5,
        seed: int | None = 42,
    ) -> None:
        self._trials = trials
        self._at_once = at_once
        self._sampler: Any = sampler
        self._startup_trials = startup_trials
        self._seed = seed
        self._launcher: Launcher

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives, and make the launcher."""
        self.hydra_context = hydra_context
        self.config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Propose, launch and tell, batch by batch."""
        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        space, fixed = split_overrides(parser.parse_overrides(arguments))
        if not self.config.evaluation.evaluators and self.config.data.get("eval") is None:
            raise ConfigError(
                "hydra/sweeper", "needs a metric to search by", "set data.eval=FILE", value="search"
            )
        for name, value in (("trials", self._trials), ("at_once", self._at_once)):
            if value < 1:
                raise ConfigError(
                    f"hydra.sweeper.{name}", "is below 1", "set at least 1", value=value
                )
        study = Study(
            space,
            mode=self.config.evaluation.mode,
            kind=self._sampler,
            seed=self._seed,
            startup_trials=self._startup_trials,
        )
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        done = 0
        for count in batches(self._trials, self._at_once):
            self._batch(study, count, fixed=fixed, done=done)
            done += count

    def _batch(self, study: Study, count: int, *, fixed: Sequence[str], done: int) -> None:
        asked = study.ask(count)
        jobs = [[*fixed, *(f"{k}={v}" for k, v in values.items())] for _, values in asked]
        self.validate_batch_is_legal(jobs)
        ended = self._launcher.launch(jobs, initial_job_idx=done)
        for (proposal, _), job in zip(asked, ended, strict=True):
            folder = _folder(job)
            trial = read_trial(folder) if folder is not None else None
            course = Series([], [])
            if folder is not None and trial is not None and trial.status == "pruned":
                course = evaluated(folder, str(trial.result.metric))
            study.tell(proposal, trial, course)


def split_overrides(overrides: Sequence[Override]) -> tuple[dict[str, Choice | Span], list[str]]:
    """The space to search, by the left side of each override, and the fixed overrides."""
    space: dict[str, Choice | Span] = {}
    fixed: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            space[key] = _values(override)
        else:
            fixed[key] = f"{key}={override.get_value_element_as_str()}"
    return space, [text for key, text in fixed.items() if key not in space]


def _values(override: Override) -> Choice | Span:
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        return Span(value.start, value.end, log="log" in value.tags, whole=whole)
    texts = tuple(override.sweep_string_iterator())
    if isinstance(value, RangeSweep) and len(texts) > 1:
        numbers = [float(text) for text in texts]
        whole = isinstance(value.start, int) and isinstance(value.step, int)
        return Span(min(numbers), max(numbers), step=abs(float(value.step)), whole=whole)
    return Choice(texts)


def _folder(job: JobReturn) -> Path | None:
    return None if job.hydra_cfg is None else Path(job.hydra_cfg.hydra.runtime.output_dir)
