"""`inbatch inspect` on rows with lists, against the same rows written as sets."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from helpers.list_rows import list_rows
from helpers.runs import TINY, compose_run
from inbatch.cli.inspect import inspect_data, read_config
from inbatch.data.inspection.show import show
from inbatch.data.inspection.values import Inspection
from inbatch.data.report.false_negatives import cells_of, count_false_negatives
from inbatch.data.sources.load import load_sources


def write_rows(path: Path) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in list_rows()))
    return path


def inspection(*overrides: str) -> Inspection:
    run, options = read_config(compose_run(*TINY, *overrides))
    return inspect_data(run, options, sampler="no_duplicates")


def shown(found: Inspection) -> str:
    out = StringIO()
    show(found, Console(file=out, width=80, highlight=False))
    return out.getvalue()


def test_lists_are_counted_and_shown_whole(tmp_path: Path) -> None:
    rows = list_rows()
    found = inspection(f"data.train={write_rows(tmp_path / 'rows.jsonl')}", "++inspect.rows=40")
    [source] = found.sources
    roles = {role.column: role.role for role in source.roles}
    assert roles == {
        "query": "query",
        "pos": "positive",
        "neg": "negative",
        "pos_scores": "positive_score",
        "neg_scores": "negative_score",
    }
    for seen in source.rows:
        row = rows[seen.number]
        texts = [(text.column, text.text + text.cut) for text in seen.texts]
        assert texts == [
            ("query", row["query"]),
            *(("pos", text) for text in row["pos"]),
            *(("neg", text) for text in row["neg"]),
        ]
    sets = {name: {text for row in rows for text in row[name]} for name in ("pos", "neg")}
    common = {(o.left, o.right): o.num_texts for o in source.overlaps}
    assert common["pos", "neg"] == len(sets["pos"] & sets["neg"])
    assert common["query", "neg"] == len({row["query"] for row in rows} & sets["neg"])
    text = shown(found)
    positives = [len(row["pos"]) for row in rows]
    assert re.search(rf"positives\s+1\s+{np.mean(positives):.2f}\s+\d\s+3\n", text)
    assert f"{positives.count(2)} with 2" in text
    lacking = sum(None in row["pos_scores"] + row["neg_scores"] for row in rows)
    scores = f"pos_scores, neg_scores, some lacking in {lacking} rows: not used by the loss"
    assert f"scores of documents in {scores}" in " ".join(text.split())
    assert "leaves them out of the negatives (loss.mask_duplicates)" in text


def test_false_negatives_among_lists_against_sets(tmp_path: Path) -> None:
    rows = list_rows()
    [source] = load_sources(str(write_rows(tmp_path / "rows.jsonl")))
    chosen = np.random.default_rng(1).permutation(40)[:25]
    texts = [rows[row] for row in chosen]
    documents = [text for row in texts for text in (*row["pos"], *row["neg"])]
    wrong = 0
    for row in texts:
        own = {row["query"], *row["pos"]}
        related = [{r["query"], *r["pos"]} for r in texts]
        known = own.union(*(other for other in related if own & other))
        wrong += sum(text in known for text in documents) - len(row["pos"])
    found = count_false_negatives(cells_of(source, chosen), len(chosen))
    assert wrong > 10
    assert found.num_false == wrong
    assert found.num_negatives == sum(len(documents) - len(row["pos"]) for row in texts)


@pytest.mark.parametrize("sampler", ["batch", "no_duplicates"])
def test_every_sampler_can_be_inspected(tmp_path: Path, sampler: str) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    found = inspection(f"data.train={path}", f"sampler={sampler}", "global_batch_size=10")
    shares = {fact.sampler: fact.false_negatives.negative_share for fact in found.samplers}
    assert shares["batch"] > shares["no_duplicates"] > 0, (
        "negatives that are popular stay, and are left to the mask"
    )
