"""The demo data is deterministic, of the promised shape, and not solved by spelling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from inbatch.data.demo import BRANDS, write_demo
from inbatch.data.sources import load_sources


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder)
    return folder


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_demo(tmp_path / name, num_products=60, seed=seed)
    for file in (
        "train-1.parquet",
        "dev_triplets.csv",
        "scored_dev.jsonl",
        "retrieval/qrels.parquet",
    ):
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b
        assert a != c or "qrels" in file


def test_files_load_by_name(demo: Path, tmp_path: Path) -> None:
    spec = {
        "train": f"{demo}/train-*.parquet",
        "dev": f"{demo}/dev_triplets.csv",
        "scored": f"{demo}/scored_train.jsonl",
        "scored_dev": f"{demo}/scored_dev.jsonl",
    }
    train, dev, scored, scored_dev = load_sources(spec, cache_dir=str(tmp_path))
    assert train.columns == dev.columns == ("query", "positive", "negative")
    assert train.roles.ignored == ("category",)
    assert (train.num_rows, dev.num_rows) == (6400, 800)
    assert (scored.num_rows, scored_dev.num_rows) == (1600, 400)
    labels = scored.labels()
    assert labels is not None
    assert (labels.min(), labels.max()) == (0.0, 1.0)
    assert len(np.unique(labels)) == 7
    (_, train_titles, _), _ = train.read(np.arange(6400))
    (_, dev_titles, _), _ = dev.read(np.arange(800))
    assert not set(train_titles) & set(dev_titles)


def test_hard_negatives_differ_in_one_part_that_spelling_does_not_tell(
    demo: Path, tmp_path: Path
) -> None:
    [train] = load_sources(f"{demo}/train-*.parquet", cache_dir=str(tmp_path))
    (queries, positives, negatives), _ = train.read(np.arange(train.num_rows))
    overlaps = []
    for query, positive, negative in zip(queries, positives, negatives):
        assert positive != negative
        heads = [text.split(", ") for text in (positive, negative)]
        assert sum(a != b for a, b in zip(*heads)) == 1
        words = set(query.split())
        spelt = [
            len(words & set(text.lower().replace(",", "").split())) for text in (positive, negative)
        ]
        overlaps.append(np.sign(spelt[0] - spelt[1]))
    assert abs(np.mean(overlaps)) < 0.1, "word overlap must not find the positive"
    assert len(set(BRANDS.values())) == len(BRANDS) == 120


def test_retrieval_is_consistent(demo: Path) -> None:
    corpus, queries, qrels = (
        pq.read_table(demo / "retrieval" / f"{name}.parquet").to_pydict()
        for name in ("corpus", "queries", "qrels")
    )
    assert len(set(corpus["text"])) == len(corpus["did"]) > 2000
    assert set(qrels["did"]) <= set(corpus["did"])
    assert set(qrels["qid"]) == set(queries["qid"])
    assert len(qrels["qid"]) >= 790
