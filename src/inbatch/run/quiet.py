"""Silences bars, tips and notices of libraries that tell a user nothing."""

from __future__ import annotations

import logging
import warnings

import datasets
import transformers


def quiet() -> None:
    """One progress line is enough: no bars of libraries, no tips of Lightning."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric", "compilers"):  # the last is deepspeed's
        logging.getLogger(name).setLevel(logging.WARNING)
    # A filter, since deepspeed sets the level when accelerate imports it; it warns of every CPU.
    logging.getLogger("DeepSpeed").addFilter(_errors_only)
    warnings.filterwarnings("ignore", ".*_tensor` is deprecated", FutureWarning)  # deepspeed's
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning's, on each rank
    warnings.filterwarnings("ignore", "The `srun` command is available")  # find_launcher knows


def _errors_only(record: logging.LogRecord) -> bool:
    """A filter with a name, which a logger takes once however often a process calls `quiet`."""
    return record.levelno >= logging.ERROR
