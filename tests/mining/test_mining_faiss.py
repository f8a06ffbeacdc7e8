"""The approximate search by faiss, where that is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inbatch.errors import ConfigError
from inbatch.mining.approximate import FaissSearch, build_index
from inbatch.mining.search import search
from inbatch.mining.vectors import ArrayVectors

pytest.importorskip("faiss")


@pytest.mark.parametrize("normalize", [True, False], ids=["cosine", "dot"])
def test_all_lists_of_an_index_have_what_the_exact_search_finds(
    normalize: bool, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    documents = ArrayVectors(generator.normal(size=(2000, 12)).astype(np.float32))
    queries = generator.normal(size=(9, 12)).astype(np.float32)
    index = tmp_path / "index.faiss"
    build_index(index, documents, normalize=normalize, factory=None)
    built = index.stat().st_mtime_ns
    build_index(index, documents, normalize=normalize, factory=None)  # it is there
    assert index.stat().st_mtime_ns == built
    exact = search(queries, documents, 20, normalize=normalize, device=torch.device("cpu"))
    whole = FaissSearch(index, documents, normalize=normalize, probes=10_000)(queries, 20)
    np.testing.assert_array_equal(whole.numbers, exact.numbers)
    np.testing.assert_array_equal(whole.scores, exact.scores)
    few = FaissSearch(index, documents, normalize=normalize, probes=1)(queries, 20)
    assert ((few.numbers >= 0) == np.isfinite(few.scores)).all()
    assert (np.isin(few.numbers, exact.numbers) | (few.numbers < 0)).mean() > 0.3


def test_an_unknown_index_is_refused(tmp_path: Path) -> None:
    documents = ArrayVectors(np.eye(4, dtype=np.float32))
    with pytest.raises(ConfigError, match=r"mine.faiss_index='Nonsense' is not known to faiss"):
        build_index(tmp_path / "index", documents, normalize=True, factory="Nonsense")


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    documents = ArrayVectors(np.eye(4, dtype=np.float32))
    index = tmp_path / "index.faiss"
    build_index(index, documents, normalize=True, factory="Flat")
    whole = index.read_bytes()
    for damaged in (whole[:-9], whole[:6], b"", b"index"):
        index.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"index\.faiss is damaged: delete it"):
            FaissSearch(index, documents, normalize=True, probes=None)
    index.write_bytes(whole)
    more = ArrayVectors(np.eye(5, 4, dtype=np.float32))
    with pytest.raises(ConfigError, match="is damaged"):
        FaissSearch(index, more, normalize=True, probes=None)
