"""The same triplets in every format train the same model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.runs import run_train, weights
from helpers.tiny import tiny_texts

ROWS = list(zip(*(tiny_texts(24, seed=seed, min_words=3) for seed in range(3)), strict=True))
OPTIONS = (
    "loss=multiple_negatives_ranking",
    "sampler=batch",
    "global_batch_size=8",
    # Which unit a dropout leaves out depends on the order of texts in a batch.
    "++encoder.config.hidden_dropout_prob=0",
    "++encoder.config.attention_probs_dropout_prob=0",
)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def passage(text: str) -> list[dict[str, str]]:
    title, _, rest = text.partition(" ")
    return [{"docid": "1", "title": title, "text": rest}]


RECORDS: dict[str, Callable[[str, str, str], Any]] = {
    "columns": lambda q, p, n: {"anchor": q, "positive": p, "negative": n},
    "flag_embedding": lambda q, p, n: {"query": q, "pos": [p], "neg": [n]},
    "tevatron": lambda q, p, n: {
        "query": q,
        "positive_passages": passage(p),
        "negative_passages": passage(n),
    },
    "messages": lambda q, p, n: {
        "messages": user(q),
        "positive_messages": [user(p)],
        "negative_messages": [user(n)],
    },
    "query_response": lambda q, p, n: {"query": q, "response": p, "rejected_response": [n]},
    "sets": lambda q, p, n: {"set": {"query": q, "pos": [p], "neg": [n]}},
    "arrays": lambda q, p, n: [q, p, n],
}


def lines(path: Path, values: list[str]) -> Path:
    path.write_text("\n".join(values) + "\n")
    return path


def write(name: str, folder: Path) -> Path:
    """The rows in a format; the folder or file to train on."""
    folder.mkdir()
    if name == "nli":
        header = "premise\thypothesis\tlabel"
        entailed = [f"{q}\t{p}\tentailment" for q, p, _ in ROWS]
        rest = [f"{q}\t{n}\tcontradiction" for q, _, n in ROWS]
        return lines(folder / "a.tsv", [header, *entailed, *rest])
    if name == "beir":
        documents = [text for _, *both in ROWS for text in both]
        corpus = [{"_id": f"d{i}", **passage(text)[0]} for i, text in enumerate(documents)]
        queries = [{"_id": f"q{i}", "text": row[0]} for i, row in enumerate(ROWS)]
        lines(folder / "corpus.jsonl", list(map(json.dumps, corpus)))
        lines(folder / "queries.jsonl", list(map(json.dumps, queries)))
        (folder / "qrels").mkdir()
        judged = [f"q{i}\td{2 * i}\t1" for i in range(len(ROWS))]
        lines(folder / "qrels" / "train.tsv", ["query-id\tcorpus-id\tscore", *judged])
        lines(folder / "hard.tsv", [f"q{i}\td{2 * i + 1}" for i in range(len(ROWS))])
        return folder
    if name == "msmarco":
        documents = [text for _, *both in ROWS for text in both]
        lines(folder / "collection.tsv", [f"{i}\t{text}" for i, text in enumerate(documents)])
        lines(folder / "queries.tsv", [f"{i}\t{row[0]}" for i, row in enumerate(ROWS)])
        return lines(folder / "ids.tsv", [f"{i}\t{2 * i}\t{2 * i + 1}" for i in range(len(ROWS))])
    return lines(folder / "a.jsonl", [json.dumps(RECORDS[name](*row)) for row in ROWS])


def trained(name: str, folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    path = write(name, folder / name)
    output = folder / f"{name}_run"
    own = [f"data.train={path}", f"data.cache_dir={folder / 'cache'}", f"output_dir={output}"]
    return weights(run_train(*own, *OPTIONS, *overrides))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return trained("columns", tmp_path_factory.mktemp("expected"))


@pytest.mark.parametrize(
    "name", ["tevatron", "messages", "query_response", "sets", "arrays", "nli"]
)
def test_formats_of_one_text_a_column(
    name: str, expected: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    found = trained(name, tmp_path)
    assert {
        key: torch.equal(value, expected[key]) for key, value in found.items()
    } == dict.fromkeys(expected, True)
    report = (tmp_path / f"{name}_run" / "data_report.md").read_text()
    assert f"Read as {name}, since " in report


@pytest.mark.parametrize("name", ["flag_embedding", "beir", "msmarco"])
def test_formats_of_lists(name: str, expected: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = trained(
        name, tmp_path, *(["data.train.format.negatives=hard.tsv"] if name == "beir" else [])
    )
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5)
