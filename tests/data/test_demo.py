"""The demo data is deterministic, of the promised shape, and not solved by spelling."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from inbatch.data.demo.catalogue import LINE, OMIT, Product, grade, write_demo
from inbatch.data.demo.words import CATEGORIES, COLOURS, LANGUAGES, MATERIALS, UNITS
from inbatch.data.sources.load import load_sources
from inbatch.evaluation import InformationRetrievalEvaluator

NUM_TRAIN, NUM_DEV = 4096, 288
FILES = ("train-0.parquet", "train-1.parquet", "dev_triplets.csv", "retrieval/queries.parquet")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder)
    return folder


@pytest.fixture(scope="module")
def triplets(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """Columns of the train files and of the dev file."""
    cache = tmp_path_factory.mktemp("cache")
    spec = {"train": f"{demo}/train-*.parquet", "dev": f"{demo}/dev_triplets.csv"}
    sources = load_sources(spec, cache_dir=str(cache))
    for source in sources:
        assert source.columns == ("query", "positive", "negative")
    assert sources[0].roles.ignored == ("language",)
    return {source.name: source.read(np.arange(source.num_rows))[0] for source in sources}


def table(demo: Path, name: str) -> dict[str, list]:
    return pq.read_table(demo / f"{name}.parquet").to_pydict()  # type: ignore[no-any-return]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_demo(tmp_path / name, num_lines=16, seed=seed)
    for file in FILES:
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b != c


def test_dev_products_occur_in_no_train_file(triplets: dict[str, list[list[str]]]) -> None:
    train, dev = triplets["train"], triplets["dev"]
    assert (len(train[0]), len(dev[0])) == (NUM_TRAIN, NUM_DEV)
    assert not {*train[1], *train[2]} & {*dev[1], *dev[2]}
    counts = np.unique(train[1], return_counts=True)[1]
    assert set(counts) == {2}, "each product has two offers"


def test_offers_come_in_every_language(demo: Path) -> None:
    languages = table(demo, "train-0")["language"]
    assert set(languages) == set(LANGUAGES)
    assert min(languages.count(name) for name in LANGUAGES) > len(languages) / len(LANGUAGES) * 0.8


def test_every_entry_has_every_language() -> None:
    entries = [
        *MATERIALS.values(),
        *(c.nouns for c in CATEGORIES),
        *(w for _, w in COLOURS.values()),
    ]
    for entry in entries:
        assert tuple(entry) == LANGUAGES
        assert all(word for spoken in entry.values() for word in spoken)
    assert len({letters for letters, _ in COLOURS.values()}) == len(COLOURS)
    for category in CATEGORIES:
        assert category.unit == "size" or category.unit in UNITS
        assert min(len(category.sizes), len(category.materials)) >= 2
        assert set(category.materials) <= set(MATERIALS)


def test_hard_negatives_differ_in_one_thing(triplets: dict[str, list[list[str]]]) -> None:
    """Code and material change with the model, code and colour with the colour, the size alone."""
    seen = set()
    for positive, negative in zip(*triplets["train"][1:]):
        heads = [re.split(r", ", text) for text in (positive, negative)]
        different = tuple(i for i, (a, b) in enumerate(zip(*heads, strict=True)) if a != b)
        assert different in ((0, 1), (2,), (0, 3))
        assert heads[0][0].split("-")[0] == heads[1][0].split("-")[0], "the same line"
        seen.add(different)
    assert len(seen) == 3


def test_spelling_alone_does_not_solve_the_triplets(triplets: dict[str, list[list[str]]]) -> None:
    queries, positives, negatives = triplets["dev"]
    margins = [
        len(words(query) & words(positive)) - len(words(query) & words(negative))
        for query, positive, negative in zip(queries, positives, negatives)
    ]
    assert 0.2 < np.mean(np.array(margins) > 0) < 0.7


def test_codes_are_spelled_in_many_ways(triplets: dict[str, list[list[str]]]) -> None:
    queries, positives, _ = triplets["train"]
    shapes = set()
    told = 0
    for query, positive in zip(queries, positives):
        letters, number = re.findall(r"([A-Z]{2})-(\d+)/", positive)[0]
        spelled = re.search(
            rf"\b{letters}([- ]?){number}([-/ ]?[A-Z]{{2}})?\b", query, re.IGNORECASE
        )
        if spelled:
            told += 1
            shapes.add((spelled[1], len(spelled[2] or "")))
    assert told / len(queries) == pytest.approx(1 - OMIT["code"], abs=0.05)
    assert {gap for gap, _ in shapes} == {"", " ", "-"}
    assert {length for _, length in shapes} == {0, 2, 3}


def test_grades() -> None:
    category = CATEGORIES[0]
    product = Product(category, "Norvik", "Aero", 320, "steel", "18", "black")
    assert product.title() == "Norvik Aero cordless drill NK-320/BK, steel, 18 V, black"
    graded = {
        3: [product],
        2: [
            Product(category, "Norvik", "Aero", 320, "steel", "12", "black"),
            Product(category, "Norvik", "Aero", 320, "steel", "12", "red"),
        ],
        1: [Product(category, "Norvik", "Aero", 325, "plastic", "18", "black")],
        0: [
            Product(category, "Norvik", "Bolt", 320, "steel", "18", "black"),
            Product(category, "Solara", "Aero", 320, "steel", "18", "black"),
            Product(CATEGORIES[1], "Norvik", "Aero", 320, "steel", "18", "black"),
        ],
    }
    for expected, others in graded.items():
        assert [grade(product, other) for other in others] == [expected] * len(others)


def test_retrieval_is_consistent(demo: Path, triplets: dict[str, list[list[str]]]) -> None:
    corpus, queries, qrels = (
        table(demo, f"retrieval/{name}") for name in ("corpus", "queries", "qrels")
    )
    titles = dict(zip(corpus["did"], corpus["text"]))
    assert len(set(titles.values())) == len(titles) == 2 * NUM_DEV
    assert queries["text"] == triplets["dev"][0]
    assert set(qrels["qid"]) == set(queries["qid"])
    grades: dict[str, list[tuple[int, str]]] = {}
    for qid, did, value in zip(*(qrels[key] for key in ("qid", "did", "grade"))):
        grades.setdefault(qid, []).append((value, titles[did]))
    for qid, positive in zip(queries["qid"], triplets["dev"][1]):
        best, *others = sorted(grades[qid], reverse=True)
        assert best == (3, positive)
        assert [value for value, _ in others] == [2] * (LINE // 2 - 1) + [1] * (LINE // 2)
        assert all(a != b for a, b in pairwise(grades[qid]))


def test_the_graded_evaluator_reads_it(demo: Path) -> None:
    evaluator = InformationRetrievalEvaluator(str(demo / "retrieval"), graded=True)
    assert evaluator.data.ideal_gains(9)[0].tolist() == [3, 2, 2, 2, 1, 1, 1, 1, 0]
