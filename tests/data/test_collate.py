"""A batch holds exactly the planned texts, in every kind of worker."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from torch.utils.data import DataLoader

from helpers.tiny import WORDS, tiny_texts, tiny_tokenizer
from inbatch.batch.batch import Batch
from inbatch.data.collate import BatchDataset, Collator
from inbatch.data.hashing import hash_texts
from inbatch.data.plan.plan import PlannedSlice
from inbatch.data.sources.load import Source, load_sources
from inbatch.encoder.static_files import UNLIMITED
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(hf=tiny_tokenizer(), max_length=12)


@pytest.fixture(scope="module")
def source() -> Source:
    columns: dict[str, list[Any]] = {
        name: tiny_texts(50, seed=seed) for seed, name in enumerate(("query", "pos", "neg"))
    }
    columns["label"] = [i / 50 for i in range(50)]
    return Source.from_columns("tiny", columns)


def flat_ids(batch: Batch, *, guide: bool = False) -> list[list[int]]:
    """Token ids without padding, in the flat order of the batch."""
    ids: dict[int, list[int]] = {}
    for chunk in batch.guide_chunks if guide else batch.chunks:
        for row, place in enumerate(chunk.index.tolist()):
            ids[place] = chunk.input_ids[row][chunk.attention_mask[row] == 1].tolist()
    return [ids[i] for i in range(batch.num_columns * batch.num_rows)]


def test_texts_labels_ids_and_order(source: Source, tokenizer: TextTokenizer) -> None:
    rows = np.array([7, 3, 49, 3])
    batch = Collator(tokenizer=tokenizer, chunk_tokens=48)(source, rows, step=5, num_global_rows=9)
    texts, labels = source.read(rows)
    assert flat_ids(batch) == tokenizer([text for column in texts for text in column])[0]
    assert len(batch.chunks) > 1
    assert all(chunk.input_ids.numel() <= 48 for chunk in batch.chunks)
    assert (batch.num_rows, batch.num_columns, batch.num_global_rows) == (4, 3, 9)
    assert (batch.step, batch.source, batch.guide_chunks) == (5, "tiny", ())
    assert batch.labels is not None
    assert labels is not None
    assert batch.labels.tolist() == labels.tolist()
    for column in range(3):
        assert batch.text_ids[column].tolist() == (hash_texts(texts[column]).tolist())


def test_no_rows_is_no_chunk(source: Source, tokenizer: TextTokenizer) -> None:
    collator = Collator(tokenizer=tokenizer, chunk_rows=2, guide_tokenizer=tokenizer)
    batch = collator(source, np.array([], dtype=np.int64), step=0, num_global_rows=3)
    assert (batch.chunks, batch.guide_chunks, batch.num_rows, batch.num_columns) == ((), (), 0, 3)
    assert batch.text_ids.shape == (3, 0)
    assert batch.labels is not None
    assert batch.labels.shape == (0,)


def test_prompts_by_column_and_by_source(tokenizer: TextTokenizer) -> None:
    texts = {"query": ["phone"], "pos": ["case"]}
    mine = Source.from_columns("mine", texts, prompts={"document": "black "})
    collator = Collator(tokenizer=tokenizer, prompts={"query": "red green ", "document": "blue "})
    for source, (prompt, length) in (
        (Source.from_columns("other", texts), ("blue ", 2)),
        (mine, ("black ", 2)),
    ):
        batch = collator(source, np.array([0]), step=0, num_global_rows=1)
        expected = [tokenizer(["phone"], "red green ")[0][0], tokenizer(["case"], prompt)[0][0]]
        assert flat_ids(batch) == expected
        by_place = {int(c.index[i]): int(c.prompt_lengths[i]) for c in batch.chunks for i in (0, 1)}
        assert by_place == {0: 3, 1: length}  # [CLS] belongs to the prompt


def test_guide_has_its_own_tokens_chunks_and_prompts(
    source: Source, tokenizer: TextTokenizer
) -> None:
    guide = TextTokenizer(hf=tiny_tokenizer(extra=["guide"]), max_length=6)
    collator = Collator(
        tokenizer=tokenizer,
        prompts={"query": "red "},
        guide_tokenizer=guide,
        guide_chunk_tokens=18,
        guide_prompts={"document": "guide "},
    )
    rows = np.arange(5)
    batch = collator(source, rows, step=0, num_global_rows=5)
    (query, pos, neg), _ = source.read(rows)
    assert flat_ids(batch) == tokenizer(query, "red ")[0] + tokenizer(pos + neg)[0]
    expected = guide(query)[0] + guide(pos + neg, "guide ")[0]
    assert flat_ids(batch, guide=True) == expected
    assert len(batch.chunks) == 1
    assert all(chunk.input_ids.numel() <= 18 for chunk in batch.guide_chunks)


@dataclass
class CountingTokenizer:
    """Remembers the texts it is asked for."""

    pad_id: int = 0
    padding_side: Literal["right", "left"] = "left"
    max_length: int = 8
    asked: list[str] = field(default_factory=list)

    def __call__(self, texts: Sequence[str], prompt: str = "") -> tuple[list[list[int]], int]:
        self.asked += [prompt + text for text in texts]
        return [[len(text)] * (1 + len(text) % 3) for text in texts], 0


def test_repeated_texts_are_tokenized_once() -> None:
    tokenizer = CountingTokenizer()
    source = Source.from_columns("x", {"query": ["a", "bb", "a"], "pos": ["bb", "ccc", "a"]})
    batch = Collator(tokenizer=tokenizer)(source, np.arange(3), step=0, num_global_rows=3)
    assert tokenizer.asked == ["a", "bb", "ccc"]
    assert flat_ids(batch) == [[1, 1], [2, 2, 2], [1, 1], [2, 2, 2], [3], [1, 1]]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"chunk_tokens": 8}, "chunk_tokens=8"),
        ({"chunk_tokens": 8}, "at least"),
        ({"chunk_rows": 0}, "chunk_rows=0"),
        ({"guide_chunk_tokens": 3, "guide_tokenizer": CountingTokenizer()}, "guide_chunk_tokens=3"),
    ],
)
def test_sizes_are_refused_before_reading(
    options: dict[str, Any], word: str, tokenizer: TextTokenizer
) -> None:
    with pytest.raises(ConfigError, match=word):
        Collator(tokenizer=tokenizer, **options)


@pytest.mark.parametrize(
    "context", [None, "fork", pytest.param("spawn", marks=pytest.mark.exhaustive)]
)
def test_workers_give_the_same_batches(
    context: str | None, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"{WORDS[i % 40]},{WORDS[(3 * i) % 40]} {i}" for i in range(30)]
    path.write_text("\n".join(["query,pos", *lines]) + "\n")
    sources = load_sources(str(path), cache_dir=str(tmp_path))
    collator = Collator(tokenizer=tokenizer, chunk_rows=4)
    assert isinstance(pickle.loads(pickle.dumps(collator)), Collator)
    plan = [PlannedSlice(step, 0, np.arange(step, 30, 7), 11) for step in range(4)]
    loader = DataLoader(
        BatchDataset(sources, collator),
        sampler=plan,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=0 if context is None else 1,
        multiprocessing_context=context,
    )
    steps = 0
    for item, batch in zip(plan, loader):
        expected = collator(sources[0], item.rows, step=item.step, num_global_rows=11)
        assert isinstance(batch, Batch)
        assert (batch.step, batch.num_rows, batch.num_global_rows) == (steps, len(item.rows), 11)
        assert flat_ids(batch) == flat_ids(expected)
        assert np.array_equal(batch.text_ids, expected.text_ids)
        steps += 1
    assert steps == 4


def test_where_no_text_is_cut_the_longest_of_a_batch_has_room(source: Source) -> None:
    unlimited = TextTokenizer(hf=tiny_tokenizer(), max_length=UNLIMITED)
    rows = np.arange(4)
    batch = Collator(tokenizer=unlimited, chunk_tokens=1)(source, rows, step=0, num_global_rows=4)
    longest = max(chunk.input_ids.shape[1] for chunk in batch.chunks)
    assert all(chunk.input_ids.numel() <= longest for chunk in batch.chunks)
    assert sum(chunk.num_texts for chunk in batch.chunks) == 12
