"""Batches of rows with lists: what is drawn and embedded once, the same on all ranks and by all readers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from helpers.list_rows import list_rows, plain_values, texts_of_batch
from helpers.tiny import tiny_tokenizer
from inbatch.batch.batch import Batch
from inbatch.batch.transfer import pack
from inbatch.data.collate import BatchDataset, Collator, check_mixable
from inbatch.data.hashing import hash_texts
from inbatch.data.plan.plan import Plan, PlannedSlice
from inbatch.data.plan.rank_feed import RankFeed
from inbatch.data.plan.samplers import Shuffled
from inbatch.data.sources.choice import Draw, ListChoice
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError
from inbatch.run.datamodule import describe_tokenizer, source_info

ROWS = list_rows()
PROMPTS = {"query": "red: ", "negative": "blue: "}
SAMPLE = ListChoice(max_negatives=2, negatives="sample", positives="sample")


def source_of(rows: list[dict[str, Any]], name: str = "x", **options: Any) -> Source:
    return Source.from_columns(
        name, {key: [row[key] for row in rows] for key in rows[0]}, **options
    )


def collator_of(**options: Any) -> Collator:
    return Collator(tokenizer=tokenizer(), prompts=PROMPTS, chunk_rows=5, **options)


def tokenizer(max_length: int = 12) -> TextTokenizer:
    return TextTokenizer(
        hf=tiny_tokenizer([str(number) for number in range(40)]), max_length=max_length
    )


def assert_equal(a: Batch, b: Batch) -> None:
    for one, two in zip(a, b, strict=True):
        if isinstance(one, np.ndarray):
            assert one.tolist() == two.tolist()
        elif isinstance(one, Tensor):
            assert plain_values(one) == plain_values(two)
        elif isinstance(one, tuple) and one and hasattr(one[0], "input_ids"):
            for left, right in zip(one, two, strict=True):
                assert all(torch.equal(x, y) for x, y in zip(left[:4], right[:4]))
        elif hasattr(one, "counts"):
            assert [np.asarray(x).tolist() for x in one[:2]] == [
                np.asarray(x).tolist() for x in two[:2]
            ]
        else:
            assert one == two


def test_draws_are_distinct_and_use_all_texts_equally() -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(1, 6, 300), rng.integers(0, 9, 300)
    choice = ListChoice(max_negatives=3, negatives="sample", positives="sample")
    rows, uses = np.arange(300), [np.zeros(p + n, int) for p, n in zip(positives, negatives)]
    seen = set()
    for epoch in range(7):
        pick = partial(choice.pick, source="x", draw=Draw(5, epoch))
        picks = pick(rows, positives, negatives)
        seen.add(tuple(picks.places.tolist()))
        assert (picks.positives == 1).all()
        assert picks.counts.tolist() == (1 + np.minimum(negatives, 3)).tolist()
        for row, places in enumerate(np.split(picks.places, np.cumsum(picks.counts)[:-1])):
            assert places[0] < positives[row]
            assert (places[1:] >= positives[row]).all()
            assert len(set(places.tolist())) == len(places)
            uses[row][places] += 1
        # A row's documents do not depend on the rows that it is asked for with.
        some = rng.permutation(300)[:20]
        alone = pick(some, positives[some], negatives[some])
        expected = np.split(picks.places, np.cumsum(picks.counts)[:-1])
        assert alone.places.tolist() == np.concatenate([expected[row] for row in some]).tolist()
    assert len(seen) == 7
    for row, count in enumerate(uses):
        for part in (count[: positives[row]], count[positives[row] :]):
            assert len(part) == 0 or part.max() - part.min() <= 1


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ListChoice(), ["p1", "p2", "n1", "n2", "n3"]),
        (ListChoice(max_negatives=2), ["p1", "p2", "n1", "n2"]),
        (ListChoice(positives="first", max_negatives=0), ["p1"]),
    ],
)
def test_the_first_documents(choice: ListChoice, expected: list[str]) -> None:
    row = {"query": "a", "pos": ["p1", "p2"], "neg": ["n1", "n2", "n3"]}
    source = source_of([row], choice=choice)
    assert source.ragged is not None
    assert source.ragged.read(np.arange(1), Draw(0, 0)).documents == expected
    assert source.ragged.document_counts(np.arange(1)).tolist() == [len(expected)]


def test_a_batch_embeds_equal_texts_once() -> None:
    rows = [
        {"query": "red", "pos": ["gold", "pink"], "neg": ["red", "grey"]},
        {"query": "blue", "pos": ["gold"], "neg": []},
        {"query": "red", "pos": ["grey"], "neg": ["grey", "pink"]},
    ]
    batch = collator_of()(source_of(rows), np.array([2, 0, 1]), step=3, num_global_rows=9)
    flat = ["red", "red", "blue", "grey", "grey", "pink", "gold", "pink", "red", "grey", "gold"]
    kinds = ["query"] * 3 + ["pos", "neg", "neg", "pos", "pos", "neg", "neg", "pos"]
    assert batch.text_ids.tolist() == hash_texts(flat).tolist()
    prompts = [{"query": "red: ", "neg": "blue: ", "pos": ""}[kind] for kind in kinds]
    expected = [tokenizer()([text], prompt)[0][0] for text, prompt in zip(flat, prompts)]
    assert texts_of_batch(batch) == expected
    assert sum(chunk.num_texts for chunk in batch.chunks) == len({*zip(flat, prompts)}) == 8
    assert batch.documents is not None
    assert batch.documents.counts.tolist() == [3, 4, 1]
    assert batch.documents.positives.tolist() == [1, 2, 1]
    assert (batch.num_rows, batch.num_columns, batch.num_global_rows) == (3, 2, 9)
    lengths: dict[int, int] = {}
    for chunk in batch.chunks:
        lengths |= dict(zip(chunk.index.tolist(), chunk.prompt_lengths.tolist()))
    expected_lengths = [tokenizer()([], prompt)[1] for prompt in prompts]
    assert [lengths[place] for place in np.asarray(batch.copies)] == expected_lengths
    assert_equal(pack(batch).open("cpu"), batch)


def test_a_guide_has_the_same_copies() -> None:
    """Texts that only the guide's prompts tell apart are two texts for the encoder too."""
    rows = [{"query": "red", "pos": ["red"], "neg": ["gold", "gold"]}]
    collator = Collator(
        tokenizer=tokenizer(), guide_tokenizer=tokenizer(), guide_prompts={"query": "blue: "}
    )
    batch = collator(source_of(rows), np.arange(1), step=0, num_global_rows=1)
    assert batch.copies is not None
    assert batch.copies.tolist() == [0, 1, 2, 2]
    guide = batch._replace(chunks=batch.guide_chunks)
    seen = (("red", "blue: "), ("red", ""), ("gold", ""), ("gold", ""))
    expected = [tokenizer()([text], prompt)[0][0] for text, prompt in seen]
    assert texts_of_batch(guide) == expected


def test_without_copies_and_without_rows() -> None:
    source = source_of([{"query": "red", "pos": ["blue"], "neg": ["gold"]}])
    assert collator_of()(source, np.arange(1), step=0, num_global_rows=1).copies is None
    empty = collator_of()(source, np.zeros(0, np.int64), step=0, num_global_rows=1)
    assert (empty.num_rows, empty.chunks, empty.text_ids.shape) == (0, (), (0,))
    assert empty.documents is not None
    assert empty.documents.num == 0


def plan_of(sources: list[Source], number: int, **options: Any) -> Plan:
    infos = [source_info(source) for source in sources]
    numbers = {"global_batch_size": 11, "seed": 3, "epoch": number, "drop_last": False}
    return Shuffled().plan(infos, **{**numbers, **options})


def documents_of(source: Source, world_size: int, *, resume_at: int = 0) -> list[Any]:
    """Documents of each global batch of two epochs, put together from those of all ranks."""
    assert source.ragged is not None
    dataset, batches = BatchDataset([source], collator_of(), seed=3), []
    for rank in range(world_size):
        feed = RankFeed(
            lambda number: plan_of([source], number),
            rank=rank,
            world_size=world_size,
            document_counts=lambda batch: source.ragged.document_counts(batch.rows),  # type: ignore[union-attr]
        )
        if resume_at:
            epoch, step = divmod(resume_at, len(feed))
            feed.resume({"epoch": epoch, "step": step, "plan": epoch, "plan_step": step})
        own = []
        for epoch in range(resume_at // len(feed), 2):
            feed.set_epoch(epoch)
            own += [dataset[item] for item in feed]
        batches.append(own)
    joined = []
    for parts in zip(*batches, strict=True):
        documents = [part.documents for part in parts]
        assert all(each.of_ranks == tuple(d.num for d in documents) for each in documents)
        ids = [part.text_ids for part in parts]
        joined.append(
            [
                np.concatenate([each[: part.num_rows] for each, part in zip(ids, parts)]).tolist(),
                np.concatenate([each[part.num_rows :] for each, part in zip(ids, parts)]).tolist(),
                np.concatenate([each.counts for each in documents]).tolist(),
                [score for part in parts for score in plain_values(part.scores)],
            ]
        )
    return joined


@pytest.mark.parametrize("choice", [ListChoice(), SAMPLE], ids=["all", "sample"])
def test_ranks_and_resumed_runs_have_the_same_documents(choice: ListChoice) -> None:
    source = source_of(ROWS, choice=choice)
    one = documents_of(source, 1)
    assert documents_of(source, 2) == documents_of(source, 3) == one
    assert documents_of(source, 2, resume_at=5) == one[5:]
    by_epoch = [{tuple(sorted(each[1])) for each in one[start : start + 4]} for start in (0, 4)]
    assert by_epoch[0] != by_epoch[1]


def write(source: Source, folder: Path, *, tokens: bool) -> Source:
    extra: dict[str, Any] = {}
    if tokens:
        prompts = collator_of().column_prompts(source)
        extra = {"tokenize": tokenizer(), "tokens": describe_tokenizer(tokenizer(), prompts)}
    job = ShardJob(source=source, folder=folder / source.name, shard_rows=16, **extra)
    list(write_shards(job, open_job(job), workers=1))
    finish_job(job, versions={})
    return opened(folder / source.name, source.choice)


def opened(path: Path | str, choice: ListChoice, **options: Any) -> Source:
    chosen = {key: getattr(choice, key) for key in ("max_negatives", "negatives", "positives")}
    cache = options.pop("cache_dir", None)
    [source] = load_sources({"x": {"path": str(path), **chosen, **options}}, cache_dir=cache)
    return source


@pytest.mark.parametrize("kind", ["prepared", "tokens", "streamed"])
def test_other_ways_to_the_same_batches(kind: str, tmp_path: Path) -> None:
    for number in range(3):
        lines = [json.dumps(row) + "\n" for row in ROWS[15 * number : 15 * number + 15]]
        (tmp_path / f"part-{number}.jsonl").write_text("".join(lines))
    raw = opened(tmp_path / "part-*.jsonl", SAMPLE)
    if kind == "streamed":
        options = {"streaming": True, "buffer_files": 2, "cache_dir": str(tmp_path / "cache")}
        other = opened(tmp_path / "part-*.jsonl", SAMPLE, **options)
    else:
        other = write(raw, tmp_path / "out", tokens=kind == "tokens")
    assert other.roles.lists == raw.roles.lists
    assert (other.tokens is not None) == (kind == "tokens")
    assert raw.ragged is not None
    assert other.ragged is not None
    for one, two in (
        (raw.ragged.hashes(), other.ragged.hashes()),
        (raw.ragged.lengths(), other.ragged.lengths()),
        (raw.ragged.conflict_hashes(), other.ragged.conflict_hashes()),
    ):
        assert [one.values.tolist(), one.offsets.tolist()] == [
            two.values.tolist(),
            two.offsets.tolist(),
        ]
    assert raw.ragged.positive_counts().tolist() == other.ragged.positive_counts().tolist()
    rows = np.random.default_rng(2).permutation(len(ROWS))[:13]
    for guide in (None, tokenizer()):
        collator = collator_of(guide_tokenizer=guide)
        items = [
            PlannedSlice(0, 0, part, 13, epoch=epoch) for epoch, part in enumerate((rows, rows[:0]))
        ]
        for item in items:
            assert_equal(*(BatchDataset([s], collator, seed=1)[item] for s in (raw, other)))
    item = PlannedSlice(0, 0, rows, 13, epoch=1)
    dataset: Any = BatchDataset([other], collator_of(), seed=1)
    loader: Any = DataLoader(
        dataset, sampler=[item], batch_size=None, num_workers=1, collate_fn=pack
    )
    expected = BatchDataset([raw], collator_of(), seed=1)[item]
    assert_equal(next(iter(loader)).open("cpu"), expected)
    with pytest.raises(TypeError, match="ragged"):
        other.text_hashes()


def test_a_limit_of_prepared_rows(tmp_path: Path) -> None:
    raw = source_of(ROWS)
    write(raw, tmp_path, tokens=True)
    limited, few = opened(tmp_path / "x", ListChoice(), limit=20), source_of(ROWS[:20])
    assert limited.ragged is not None
    assert few.ragged is not None
    for name in ("hashes", "lengths", "conflict_hashes"):
        one, two = getattr(limited.ragged, name)(), getattr(few.ragged, name)()
        assert [one.values.tolist(), one.offsets.tolist()] == [
            two.values.tolist(),
            two.offsets.tolist(),
        ]


def test_streamed_files_of_which_some_have_lists(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"query": "a", "positive": "b", "negative": "c"},
        {"query": "d", "positive": ["e", "f"], "negative": []},
        {"query": "g", "positive": "h", "negative": None},
    ]
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(row))
    source = opened(
        tmp_path / "*.jsonl", ListChoice(), streaming=True, cache_dir=str(tmp_path / "cache")
    )
    assert source.ragged is not None
    queries, documents, picks = source.ragged.read(np.arange(3))
    assert (queries, documents) == (["a", "d", "g"], ["b", "c", "e", "f", "h"])
    assert source.ragged.picks(np.arange(3)).counts.tolist() == picks.counts.tolist() == [2, 2, 1]
    assert source.ragged.hashes().values.tolist() == hash_texts([*"abcdefgh"]).tolist()
    assert source.ragged.conflict_hashes().values.tolist() == hash_texts([*"abdefgh"]).tolist()


def test_rows_of_several_sources_in_one_batch() -> None:
    sources = [source_of(ROWS[:20], "a", choice=SAMPLE), source_of(ROWS[20:], "b")]
    numbers, rows = np.array([1, 0, 0, 1]), np.array([3, 5, 0, 1])
    dataset = BatchDataset(sources, collator_of(), seed=4)
    mixed = dataset[PlannedSlice(0, -1, rows, 4, numbers, epoch=2)]
    assert mixed.documents is not None
    alone = [
        dataset[PlannedSlice(0, s, rows[i : i + 1], 4, epoch=2)]
        for i, s in enumerate(numbers.tolist())
    ]
    expected = [each.text_ids[0] for each in alone] + [
        i for each in alone for i in each.text_ids[1:]
    ]
    assert mixed.text_ids.tolist() == [int(each) for each in expected]
    counts = [int(each.documents.counts[0]) for each in alone if each.documents is not None]
    assert mixed.documents.counts.tolist() == counts
    tokens = [texts_of_batch(each) for each in alone]
    assert texts_of_batch(mixed) == [t[0] for t in tokens] + [i for t in tokens for i in t[1:]]
    empty = dataset[PlannedSlice(0, -1, rows[:0], 4, numbers[:0])]
    assert empty.text_ids.tolist() == []
    check_mixable(sources, one_loss=True)
    columns = Source.from_columns("c", {"query": ["a"], "pos": ["b"], "neg": ["c"]})
    with pytest.raises(ConfigError, match="whether rows have lists"):
        check_mixable([sources[0], columns], one_loss=True)
