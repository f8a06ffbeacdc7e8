"""A run at Weights & Biases: its name, its configuration, and how its metrics are drawn.

The rows themselves come from `StepLog` and `Evaluation`, as for every logger; their step is
``trainer/global_step``, the number of optimizer steps. Offline and disabled runs are treated the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer, loggers
from lightning.pytorch.loggers import Logger

from inbatch import compat
from inbatch.errors import ConfigError
from inbatch.export.git import git_state
from inbatch.export.redaction import redact
from inbatch.sweep.trials import read_trial

STEP = "trainer/global_step"
UNITS = {
    "train/loss": "mean over the rows of the global batch",
    "train/lr": "of the first parameter group",
    "train/gradient_norm": "L2, before clipping",
    "train/positive_similarity": "mean score of a query and its positive",
    "train/hardest_negative_similarity": "mean score of a query and its nearest negative",
    "train/filtered_share": "share of the negatives that are left out as false",
    "train/alignment": "mean squared distance of query and positive",
    "train/uniformity": "log of the mean of exp(-2 squared distance)",
    "perf/samples_per_s": "rows a second, all ranks",
    "perf/tokens_per_s": "real tokens a second, all ranks",
    "perf/padding_share": "share of the computed tokens",
    "perf/time_share_": "share of the step's time",
    "perf/mfu": "share of the device's rate of matrix products",
    "perf/compiled_graphs": "graphs that torch.compile has made",
    "perf/peak_memory_gib": "GiB, one rank",
    "perf/device_hours": "of all ranks, in all starts of the run",
    "perf/energy_kwh": "of the GPUs of all ranks, in all starts of the run",
    "perf/texts_seen": "texts trained on, each as often as it was",
    "perf/tokens_seen": "real tokens trained on",
    "epoch": "epochs, with fractions",
}


def named(node: Mapping[str, Any], *, run_name: str, output_dir: Path) -> dict[str, Any]:
    """The configuration of a logger, with name and group where it is one of W&B and has none.

    A run has its own name; a trial of a sweep that of the sweep with its number, and the sweep as group.

    Raises:
        ConfigError: W&B is not installed, or an offline run is to send its model.
    """
    if not str(node["_target_"]).endswith(".WandbLogger"):
        return dict(node)
    if find_spec("wandb") is None:
        fix = "run pip install 'inbatch[wandb]'"
        raise ConfigError("logger", "needs the package wandb", fix, value="wandb")
    if node.get("offline") and node.get("log_model"):
        raise ConfigError(
            "logger.wandb.log_model",
            "sends the model, and logger.wandb.offline=true sends nothing",
            "set one of them",
            value=True,
        )
    trial = read_trial(output_dir)
    sweep = f"{run_name}/{output_dir.parent.name}"
    name = run_name if trial is None else f"{sweep}/{trial.number}"
    group = None if trial is None else sweep
    return {**node, "name": node.get("name") or name, "group": node.get("group") or group}


class WandbLogger(loggers.WandbLogger):
    """Lightning's, under its keys; offline it prints nothing, since the run's summary says all of it."""

    def __init__(self, **options: Any) -> None:
        import wandb

        if options.get("offline"):
            options = {"settings": wandb.Settings(silent=True), **options}
        super().__init__(**options)
        compat.drop_anonymous(self)


def open_run(logger: Logger, *, key: str) -> None:
    """Start the run of a W&B logger that sends, while nothing is lost if it cannot.

    Args:
        logger: any.
        key: of the logger in the configuration.

    Raises:
        ConfigError: there is no key, or W&B cannot be reached or refuses it.
    """
    if not isinstance(logger, loggers.WandbLogger) or compat.is_offline(logger):
        return
    import wandb

    if wandb.setup().settings.mode not in (None, "online"):  # WANDB_MODE says otherwise
        return
    try:
        wandb.login(verify=True)
        _ = logger.experiment
    except wandb.errors.Error as error:
        raise ConfigError(
            f"{key}.offline",
            f"cannot start a run at W&B ({str(error).strip().rstrip('.')})",
            "set WANDB_API_KEY or run `wandb login`, and check the network; or set "
            f"{key}.offline=true and send the run later with `wandb sync`",
            value=False,
        ) from None


class WandbRun(Callback):
    """Sends the configuration and describes the metrics; `finish` ends the run.

    Args:
        config: the resolved configuration; secrets are replaced.
        metric: key of the evaluation that chooses the model; None without evaluation.
        mode: whether a larger or a smaller value of it is better.
    """

    def __init__(
        self, config: Mapping[str, Any], *, metric: str | None, mode: Literal["max", "min"]
    ) -> None:
        self._config = config
        self._metric = metric
        self._mode = mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the run."""
        for run in _runs(trainer):
            about = {"code": git_state(), "world_size": trainer.world_size, "units": UNITS}
            run.config.update({**redact(self._config), **about}, allow_val_change=True)
            run.define_metric("epoch", step_metric=STEP, hidden=True)
            for group in ("train", "eval", "perf"):
                run.define_metric(f"{group}/*", step_metric=STEP, step_sync=True)
            if self._metric is not None:
                run.define_metric(
                    f"eval/{self._metric}",
                    step_metric=STEP,
                    step_sync=True,
                    summary=f"{self._mode},last",
                )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the run as failed, if it has been started."""
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None and _loggers(trainer):
            wandb.run.finish(exit_code=1)

    def finish(
        self, trainer: Trainer, summary: Mapping[str, Any], *, model_dir: Path
    ) -> dict[str, str]:
        """End the run; returns the folders of all its starts where they are still to be sent.

        Args:
            trainer: of the run.
            summary: what to add to its summary.
            model_dir: goes with it as an artifact where the logger has ``log_model: true``.
        """
        folders: dict[str, str] = {}
        for logger in _loggers(trainer):
            run = logger.experiment
            run.summary.update(dict(summary))
            if compat.sends_model(logger):
                import wandb

                artifact = wandb.Artifact(f"model-{run.id}", type="model")
                artifact.add_dir(str(model_dir))
                run.log_artifact(artifact, aliases=["best"])
            if compat.is_offline(logger):
                starts = Path(run.dir).parent.parent.glob(f"offline-run-*-{run.id}")
                folders["wandb"] = " ".join(sorted(map(str, starts)))
            run.finish()
        return folders


def _loggers(trainer: Trainer) -> list[loggers.WandbLogger]:
    """W&B loggers that write: those of rank 0."""
    if not trainer.is_global_zero:
        return []
    return [logger for logger in trainer.loggers if isinstance(logger, loggers.WandbLogger)]


def _runs(trainer: Trainer) -> list[Any]:
    return [logger.experiment for logger in _loggers(trainer)]
