"""The data report on rows with lists, against brute force on sets of texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.tiny import tiny_tokenizer
from inbatch.data.hashing import hash_texts
from inbatch.data.inspection.samplers import Configured, compare_samplers
from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers import NoDuplicates, Shuffled
from inbatch.data.ragged import RaggedValues
from inbatch.data.report import list_counts
from inbatch.data.report.build import build_report, write
from inbatch.data.report.list_counts import count_lists, list_lengths
from inbatch.data.report.list_source import lists_of
from inbatch.data.report.text import to_markdown
from inbatch.data.report.values import DataReport, FalseNegatives
from inbatch.data.sources.source import Source
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.run.datamodule import source_info

Row = tuple[str, list[str], list[str]]


class InMemory:
    """Rows with lists, as a source gives them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def hashes(self) -> RaggedValues:
        return self._flat(lambda texts: hash_texts(texts), lambda row: [row[0], *row[1], *row[2]])

    def lengths(self) -> RaggedValues:
        return self._flat(
            lambda texts: np.array([len(text) for text in texts], dtype=np.int32),
            lambda row: [row[0], *row[1], *row[2]],
        )

    def conflict_hashes(self) -> RaggedValues:
        return self._flat(lambda texts: hash_texts(texts), lambda row: [row[0], *row[1]])

    def positive_counts(self) -> np.ndarray:
        return np.array([len(row[1]) for row in self.rows], dtype=np.int32)

    def read(self, rows: np.ndarray) -> Any:
        chosen = [self.rows[row] for row in rows]
        picks = SimpleNamespace(
            counts=np.array([len(row[1]) + len(row[2]) for row in chosen]),
            positives=np.array([len(row[1]) for row in chosen]),
        )
        documents = [text for row in chosen for text in (*row[1], *row[2])]
        return SimpleNamespace(queries=[row[0] for row in chosen], documents=documents, picks=picks)

    def _flat(self, value_of: Any, texts_of: Any) -> RaggedValues:
        texts = [texts_of(row) for row in self.rows]
        offsets = np.append(0, np.cumsum([len(row) for row in texts]))
        return RaggedValues(value_of([text for row in texts for text in row]), offsets)


def source_of(rows: Sequence[Row], name: str = "mine") -> Source:
    columns = {
        "query": [row[0] for row in rows],
        "pos": ["p"] * len(rows),
        "neg": ["n"] * len(rows),
    }
    source = Source.from_columns(name, columns)
    source.ragged = InMemory(rows)  # type: ignore[assignment]
    return source


def random_rows(num_rows: int, *, words: int, seed: int = 0) -> list[Row]:
    generator = np.random.default_rng(seed)

    def texts(count: int) -> list[str]:
        return [f"t{number}" for number in generator.integers(0, words, count)]

    return [
        (
            texts(1)[0],
            texts(int(generator.integers(1, 4))),
            texts(int(generator.integers(0, 6))),
        )
        for _ in range(num_rows)
    ]


def plan_of(sampler: Any, rows: Sequence[Row], batch: int = 16) -> Plan:
    conflicts = InMemory(rows).conflict_hashes()
    info = SourceInfo("mine", len(rows), conflicts=lambda: conflicts)
    return sampler.plan([info], global_batch_size=batch, seed=0, epoch=0, drop_last=True)


def report_of(rows: Sequence[Row], **options: Any) -> DataReport:
    return build_report([source_of(rows)], **options)


@pytest.mark.parametrize("sampler", [Shuffled(), NoDuplicates()])
def test_false_negatives_are_those_that_an_inspection_counts(sampler: Any) -> None:
    rows = random_rows(256, words=2000)  # 16 batches: all are looked at
    apart = isinstance(sampler, NoDuplicates)  # which alone keeps keys apart
    keys = [f"k{number % 100 if apart else number}" for number in range(len(rows))]
    columns: dict[str, Any] = dict(zip(("query", "pos", "neg"), zip(*rows)))
    columns = {name: list(values) for name, values in columns.items()} | {"sku": keys}
    source = Source.from_columns("mine", columns, mapping={"key": "sku"} if apart else None)
    infos = [source_info(source)]
    plan = sampler.plan(infos, global_batch_size=16, seed=0, epoch=0, drop_last=True)
    [report] = build_report([source], plans={"mine": plan}).sources
    assert report.lists is not None
    found = report.lists.false_negatives["mine"]
    [seen] = [
        fact.false_negatives
        for fact in compare_samplers(
            [source],
            infos,
            contrasted=["mine"],
            configured=Configured("mine", sampler, plan),
            global_batch_size=16,
            seed=0,
            drop_last=True,
        )
        if fact.configured
    ]
    assert found == seen
    wrong = num_negatives = 0
    for batch in plan:
        texts = [rows[row] for row in batch.rows.tolist()]
        documents = [text for _, positives, negatives in texts for text in (*positives, *negatives)]
        for row, (query, positives, _) in zip(batch.rows.tolist(), texts):
            own = {query, *positives}
            known = own.union(
                *(
                    {rows[far][0], *rows[far][1]}
                    for far in batch.rows.tolist()
                    if own & {rows[far][0], *rows[far][1]} or keys[far] == keys[row]
                )
            )
            wrong += sum(text in known for text in documents) - len(positives)
            num_negatives += len(documents) - len(positives)
    assert found.num_batches == plan.num_steps
    assert found.negative_share == pytest.approx(wrong / num_negatives)
    assert wrong > 0


def test_counts_against_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_counts, "_BLOCK_ROWS", 64)
    rows = random_rows(500, words=150)
    rows += [*rows[:5], (rows[9][0], rows[9][1], [])]
    counts = count_lists(lists_of(InMemory(rows)))
    assert counts.num_duplicate_rows == len(rows) - len({repr(row) for row in rows})
    assert counts.num_positive_is_query == sum(q in p for q, p, _ in rows) > 0
    assert counts.num_negative_is_own == sum(bool({q, *p} & {*n}) for q, p, n in rows) > 0
    assert counts.num_without_negatives == sum(not n for _, _, n in rows)
    by_role = ([[q] for q, _, _ in rows], [p for _, p, _ in rows], [n for _, _, n in rows])
    assert counts.num_distinct == tuple(
        len({text for texts in role for text in texts}) for role in by_role
    )
    for shared, role in (
        (counts.shared_queries, by_role[0]),
        (counts.shared_positives, by_role[1]),
    ):
        holders: dict[str, int] = {}
        for texts in role:
            for text in set(texts):
                holders[text] = holders.get(text, 0) + 1
        several = [count for count in holders.values() if count > 1]
        assert (shared.num_texts, shared.num_rows) == (len(several), sum(several))
        assert shared.row_share == pytest.approx(sum(several) / sum(holders.values()))


def test_lengths_of_lists() -> None:
    few = list_lengths(np.bincount([1, 1, 3, 3, 3, 0]))
    assert (few.min, few.mean, few.p50, few.max) == (0, round(11 / 6, 2), 1, 3)
    assert [(b.low, b.high, b.count) for b in few.bins] == [(0, 0, 1), (1, 1, 2), (3, 3, 3)]
    many = list_lengths(np.ones(30, dtype=np.int64))
    assert [(b.low, b.high, b.count) for b in many.bins] == [
        (0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 4), (8, 15, 8), (16, 29, 14),
    ]  # fmt: skip


ROWS: list[Row] = [
    ("e", ["f"], ["f", "n2 | n3"]),
    ("a", ["b", "b2"], ["n1", "d"]),
    ("c", ["d"], []),
    ("g", ["h"], ["n1"]),
]


def test_the_report_says_what_lists_are_like(tmp_path: Path) -> None:
    plans = {"Shuffled": plan_of(Shuffled(), ROWS, batch=4)}
    report = report_of(ROWS, plans=plans, tokenizer=TextTokenizer(tiny_tokenizer(), max_length=16))
    [source] = report.sources
    assert source.lists is not None
    assert [column.role for column in source.columns] == ["query", "positive", "negative"]
    assert [column.num_distinct for column in source.columns] == [4, 5, 4]
    assert source.columns[2].characters.max == len("n2 | n3")
    assert source.columns[1].tokens is not None
    assert source.lists.num_without_negatives == 1
    assert source.num_negative_is_own == 1
    [found] = source.lists.false_negatives.values()
    # f of e for e, d of a for c; each row has ten documents, of which its own positives are none.
    assert found == FalseNegatives(1, 1.0, 2 / 4, 2 / 35)
    assert sorted(each["document"] for each in source.lists.examples) == ["d", "f"]
    assert {"document": "d", "of": "a", "known positive of": "c"} in source.lists.examples
    write(report, tmp_path / "data_report.md")
    stored = json.loads((tmp_path / "data_report.json").read_text(encoding="utf-8"))
    assert stored["sources"][0]["lists"]["positives"]["bins"][1] == {
        "low": 2,
        "high": 2,
        "count": 1,
    }
    page = (tmp_path / "data_report.md").read_text(encoding="utf-8")
    for line in (
        "| positives | 1 | 1.25 | 1 | 2 | 1: 3, 2: 1 |",
        "| negatives | 0 | 1.25 | 1 | 2 | 0: 1, 1: 1, 2: 2 |",
        "- rows without negatives: 1",
        "| Shuffled, 1 looked at | 100.0% | 50.0% | 5.7% |",
        "- document: d; of: a; known positive of: c",
        "['f', 'n2 \\| n3']",
    ):
        assert line in page
    assert stored["sources"][0]["samples"][0]["neg"] == ["f", "n2 | n3"]


def test_known_positives_are_warned_about_unless_masked() -> None:
    plans = {"Shuffled": plan_of(Shuffled(), ROWS, batch=4)}
    [own, other] = sorted(report_of(ROWS, plans=plans).warnings, reverse=True)
    assert other.startswith("1 rows of source 'mine' have a negative equal to their query or a pos")
    assert own.startswith("50% of the rows of source 'mine' have a known positive among the negat")
    assert "loss.mask_duplicates=true" in own
    kept_apart = report_of(ROWS, plans=plans, duplicate_share=lambda source: 0.0)
    assert own in kept_apart.warnings  # of which negatives are no part
    assert report_of(ROWS, plans=plans, masked=["mine"]).warnings == (other,)
    assert "the loss leaves them out" in to_markdown(report_of(ROWS, plans=plans, masked=["mine"]))
    assert report_of(ROWS, plans=plans, in_batch=[]).warnings == (other,)
    assert "negatives that are one" not in to_markdown(report_of(ROWS, plans=plans, in_batch=[]))


def test_rows_without_any_negatives() -> None:
    rows: list[Row] = [(f"q{i}", [f"p{i}"], []) for i in range(20)]
    report = report_of(rows, plans={"Shuffled": plan_of(Shuffled(), rows)})
    assert report.warnings == ()
    assert [column.role for column in report.sources[0].columns] == ["query", "positive"]
    assert report.sources[0].lists is not None
    assert report.sources[0].lists.negatives.max == 0


def test_a_source_with_lists_is_reported_as_its_rows_are() -> None:
    rows = random_rows(200, words=900)
    columns = {"query": [q for q, _, _ in rows], "pos": [p for _, p, _ in rows]}
    source = Source.from_columns("mine", {**columns, "neg": [n for _, _, n in rows]})
    info = source_info(source)
    plan = NoDuplicates().plan([info], global_batch_size=16, seed=0, epoch=0, drop_last=True)
    assert [b.rows.tolist() for b in plan] == [
        b.rows.tolist() for b in plan_of(NoDuplicates(), rows)
    ]
    [mine] = build_report([source], plans={"mine": plan}).sources
    [expected] = report_of(rows, plans={"mine": plan}).sources
    assert mine == expected
    assert mine.lists is not None
    assert mine.lists.negatives.max == 5
