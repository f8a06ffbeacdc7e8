"""Every use of a private name of another library, one function each, with the reason for it.

`tests/test_compat.py` tests each of them, and `pyproject.toml` pins these libraries below the next release
that could take a name away. The libraries are imported when a function is called, so that importing this
module costs nothing.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import IConfigRepository
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.default_element import ResultDefault
    from hydra.core.override_parser.types import Override
    from hydra.plugins.config_source import ConfigResult
    from hydra.plugins.launcher import Launcher
    from lightning.pytorch import Trainer
    from lightning.pytorch.loggers import WandbLogger
    from omegaconf import DictConfig
    from torch import Tensor, nn
    from torch.optim import Optimizer

# --- Lightning -------------------------------------------------------------------------------------------


class _PartOfPackage(ModuleType):
    """A package of which some modules are loaded; asked for a name that it lacks, it loads the rest."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def load_part_of_torchmetrics() -> None:
    """Load the two classes of torchmetrics that Lightning mentions; whoever asks for more gets all of it.

    The package loads all its metrics, and scipy for those of sounds: a second of each start, for nothing that
    is used here. Its modules take its logger, which is private, from the package that they are a part of.
    """
    spec = None if "torchmetrics" in sys.modules else find_spec("torchmetrics")
    if spec is None:
        return
    part = module_from_spec(spec)
    part.__class__ = _PartOfPackage
    part._logger = logging.getLogger("torchmetrics")  # type: ignore[attr-defined]
    sys.modules["torchmetrics"] = part
    import_module(
        "torchmetrics.utilities"
    )  # first, as in the package: its modules need one another
    for module, name in (("metric", "Metric"), ("collections", "MetricCollection")):
        setattr(part, name, getattr(import_module(f"torchmetrics.{module}"), name))


def leave_signals_alone(trainer: Trainer) -> None:
    """Keep a trainer from handling SIGTERM and from asking all ranks about it before each step.

    Its handler runs a collective inside the signal handler, which deadlocks where ranks get the signal at
    different moments, and the question makes the host wait for the device. There is no public switch.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def observe_ranks(observe: Callable[[list[subprocess.Popen[bytes]]], None]) -> None:
    """Hand the processes of the ranks that Lightning starts in this process to `observe`.

    It takes the place of Lightning's observer, which looks every five seconds and, where a rank has failed,
    kills all others without a word. There is no public switch.
    """
    from lightning.fabric.strategies.launchers import subprocess_script as of_fabric
    from lightning.pytorch.strategies.launchers import subprocess_script as of_trainer

    of_fabric._launch_process_observer = observe  # type: ignore[assignment]
    of_trainer._launch_process_observer = observe  # type: ignore[assignment]


def sends_model(logger: WandbLogger) -> bool:
    """Return whether a W&B logger was made with ``log_model``, which it keeps in a private attribute."""
    return bool(logger._log_model)


def is_offline(logger: WandbLogger) -> bool:
    """Return whether a W&B logger was made with ``offline``, which it keeps in a private attribute."""
    return bool(logger._offline)


def drop_anonymous(logger: WandbLogger) -> None:
    """Take ``anonymous`` out of what Lightning hands to `wandb.init`, which warns that it has no effect."""
    logger._wandb_init.pop("anonymous", None)


# --- Hydra -----------------------------------------------------------------------------------------------


def hydra_parser() -> argparse.ArgumentParser:
    """Return the parser of Hydra's own options; its public entry points parse and run in one go."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def hydra_options_with_value() -> list[str]:
    """Return the names of Hydra's options that take a value; argparse has no public list of options."""
    actions = hydra_parser()._actions
    return [name for action in actions if action.nargs is None for name in action.option_strings]


def serial_launcher() -> Launcher:
    """Return Hydra's default launcher, which runs jobs in this process one after another."""
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    return BasicLauncher()


def trials_of(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each job of a sweep, in the order of Hydra's default sweeper.

    The sweeper has no public name, and the one in its configuration cannot be asked without a run.

    Raises:
        hydra.errors.HydraException: values cannot be counted, as those of an interval.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (trials,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    return trials


class EditFile(Protocol):
    """Returns what Hydra is to take of a file; see `inbatch.config.composition`."""

    def __call__(
        self,
        config: DictConfig,
        file: ResultDefault,
        *,
        files: Sequence[ResultDefault],
        overrides: Sequence[str],
    ) -> DictConfig:
        """Return what to take."""
        ...


@contextmanager
def hydra_files_edited(edit: EditFile) -> Iterator[None]:
    """Let an application of Hydra that starts inside pass each YAML file to a function before it merges it.

    Hydra has plugins for where files come from, but none for what it takes of them beside the others. The
    loader is pickled with the jobs of launchers, so the trials of a sweep are composed alike.
    """
    from hydra._internal import hydra as internal

    loader = internal.ConfigLoaderImpl
    internal.ConfigLoaderImpl = partial(_editing_loader(), edit)  # type: ignore
    try:
        yield
    finally:
        internal.ConfigLoaderImpl = loader  # type: ignore[misc]


@cache
def _editing_loader() -> type[ConfigLoaderImpl]:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import DictConfig

    class EditingLoader(ConfigLoaderImpl):
        def __init__(self, edit: EditFile, config_search_path: ConfigSearchPath) -> None:
            super().__init__(config_search_path)
            self._edit = edit
            self._overrides: list[str] = []
            self._files: list[ResultDefault] = []

        def load_configuration(
            self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
        ) -> DictConfig:
            self._overrides = overrides
            return super().load_configuration(config_name, overrides, *args, **kwargs)

        def _compose_config_from_defaults_list(
            self, defaults: list[ResultDefault], repo: IConfigRepository
        ) -> DictConfig:
            self._files = defaults
            return super()._compose_config_from_defaults_list(defaults, repo)

        def _load_single_config(
            self, default: ResultDefault, repo: IConfigRepository
        ) -> ConfigResult:
            loaded = super()._load_single_config(default, repo)
            if loaded.is_schema_source or not isinstance(loaded.config, DictConfig):
                return loaded
            config = self._edit(
                loaded.config, default, files=self._files, overrides=self._overrides
            )
            return replace(loaded, config=config)

    return EditingLoader


# --- torch -----------------------------------------------------------------------------------------------


def unscale_before_step(optimizer: Optimizer) -> None:
    """Have the gradient scaler of fp16 unscale before the step, also for a fused optimizer.

    A fused optimizer would unscale inside its step, so that clipping would see scaled gradients. The scaler
    reads this attribute and has no argument for it.
    """
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def num_writes(tensor: Tensor) -> int:
    """Return how often a tensor was written to in place, which autograd counts without a public name.

    What fused optimizers write to parameters is not counted, but the number of their step is a tensor too.
    """
    return int(tensor._version)


def keep_graphs_whole() -> None:
    """Keep torch.compile from splitting graphs at the gradient buckets of DDP.

    A step runs inside DDP's forward. Splitting gains nothing, since only the last backward of a step reduces,
    and fails with small buckets. The setting has no public name.
    """
    import torch._dynamo

    torch._dynamo.config.optimize_ddp = False


def num_compiled_graphs() -> int:
    """Return how many graphs torch.compile has made in this process. Importing the counter takes a second."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def flash_attention(
    query_PHd: Tensor,
    key_PHd: Tensor,
    value_PHd: Tensor,
    *,
    offsets: Tensor,
    longest: int,
    dropout: float,
    scale: float,
    reach: int | None,
) -> Tensor:
    """Return attention within packed texts, [P, H, d], by the kernel below torch's `varlen_attn`.

    The public function has no dropout, and in early releases neither scale nor window.

    Args:
        query_PHd: heads of P packed tokens; keys and values likewise.
        offsets: where each text begins, and the end of the last, int32 [N + 1].
        longest: tokens of the longest text.
        dropout: share of attention weights that are set to zero.
        scale: factor of the products of queries and keys.
        reach: tokens on each side that a token attends to; None for all.
    """
    import torch

    heads = (query_PHd, key_PHd, value_PHd)
    window = {} if reach is None else {"window_size_left": reach, "window_size_right": reach}
    output: Tensor = torch.ops.aten._flash_attention_forward(
        *heads, offsets, offsets, longest, longest, dropout, False, False, scale=scale, **window
    )[0]
    return output


# --- transformers and DeepSpeed --------------------------------------------------------------------------


def attention_name(model: nn.Module) -> str:
    """Return which attention a transformers model runs; it can be set in public, but not read."""
    return str(model.config._attn_implementation)  # type: ignore[union-attr]


def switch_off_shared_memory_collectives() -> None:
    """Keep DeepSpeed on CPUs from compiling collectives over shared memory; gloo does as well."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
