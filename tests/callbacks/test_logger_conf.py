"""Every `conf/logger` composes to loggers that a run can write to, alone and together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from omegaconf import OmegaConf

from inbatch.callbacks.wandb_run import WandbLogger

CONF = Path(__file__).parents[2] / "conf"
KINDS: dict[str, list[type[Logger]]] = {
    "none": [],
    "csv": [CSVLogger],
    "tensorboard": [TensorBoardLogger],
    "wandb": [WandbLogger],
    "many": [CSVLogger, TensorBoardLogger, WandbLogger],
}


def loggers_of(name: str, output_dir: Path) -> list[Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=[f"+logger={name}", f"+output_dir={output_dir}"])
    OmegaConf.resolve(config)
    return [instantiate(logger) for logger in (config.get("logger") or {}).values()]


def test_every_file_is_known() -> None:
    assert {path.stem for path in (CONF / "logger").glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_logger_yaml(name: str, tmp_path: Path) -> None:
    assert (CONF / "logger" / f"{name}.yaml").read_text().startswith("# ")
    loggers = loggers_of(name, tmp_path)
    assert [type(logger) for logger in loggers] == KINDS[name]
    for logger in loggers:
        if not isinstance(logger, WandbLogger):  # a wandb run starts a service
            logger.log_metrics({"train/loss": 1.0}, step=1)
            logger.finalize("success")
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert written == {logger.name for logger in loggers if not isinstance(logger, WandbLogger)}


def test_wandb_stays_offline_in_the_run_folder(tmp_path: Path) -> None:
    (logger,) = loggers_of("wandb", tmp_path)
    assert logger._offline is True
    assert logger._wandb_init["settings"].silent
    assert "anonymous" not in logger._wandb_init, "W&B would warn of it"
    assert (logger.save_dir, logger.name) == (str(tmp_path), "inbatch")
