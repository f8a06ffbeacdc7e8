"""Silences bars, tips and notices of libraries that tell a user nothing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import transformers

# The last is deepspeed's.
_CHATTY = ("lightning.pytorch", "lightning.fabric", "compilers")
_BARS = (datasets.utils.logging, transformers.utils.logging)


@contextmanager
def quiet() -> Iterator[None]:
    """One progress line is enough: no bars of libraries, no tips of Lightning, while the block runs."""
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    bars = [library for library in _BARS if library.is_progress_bar_enabled()]
    try:
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        for library in bars:
            library.disable_progress_bar()
        # A filter, since deepspeed sets the level when accelerate imports it; it warns of every CPU.
        logging.getLogger("DeepSpeed").addFilter(_errors_only)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", ".*_tensor` is deprecated", FutureWarning
            )  # deepspeed's
            warnings.filterwarnings(
                "ignore", ".*LeafSpec", FutureWarning
            )  # Lightning's, on each rank
            warnings.filterwarnings("ignore", "The `srun` command")  # find_launcher knows
            yield
    finally:
        logging.getLogger("DeepSpeed").removeFilter(_errors_only)
        for library in bars:
            library.enable_progress_bar()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
