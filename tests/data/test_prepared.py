"""A prepared folder gives what the raw data give, and refuses what it is not."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.tiny import tiny_texts, tiny_tokenizer
from inbatch.data.collate import BatchDataset, Collator
from inbatch.data.plan.plan import PlannedSlice
from inbatch.data.read import read_mixed
from inbatch.data.sources import shards
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.prepared import MANIFEST
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError
from inbatch.files import write_json
from inbatch.run.datamodule import check_stored_tokens, describe_tokenizer

PROMPTS = {"query": "red: "}


def tokenizer_of(max_length: int = 9, extra: list[str] | None = None) -> TextTokenizer:
    return TextTokenizer(hf=tiny_tokenizer(extra), max_length=max_length)


def raw_rows(num_rows: int = 50) -> list[dict[str, Any]]:
    texts = [tiny_texts(num_rows, seed=seed, max_words=12) for seed in (1, 2)]
    rows = [
        {"query": a, "pos": b, "score": i / 7, "sku": i // 3, "other": i}
        for i, (a, b) in enumerate(zip(*texts))
    ]
    rows[4]["pos"] = None
    return rows


def raw(folder: Path, name: str = "x", **options: Any) -> Source:
    path = folder / "raw.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in raw_rows()))
    spec = {"path": str(path), "columns": {"key": "sku"}, "on_empty": "drop", **options}
    [source] = load_sources({name: spec}, cache_dir=str(folder / "cache"))
    return source


def job_of(source: Source, folder: Path, *, tokens: bool = False, **options: Any) -> ShardJob:
    extra: dict[str, Any] = {}
    if tokens:
        collator = Collator(tokenizer=tokenizer_of(), prompts=PROMPTS)
        description = describe_tokenizer(collator.tokenizer, collator.column_prompts(source))
        extra = {"tokenize": collator.tokenizer, "tokens": description}
    return ShardJob(
        source=source, folder=folder / source.name, **{"shard_rows": 16, **extra, **options}
    )


def write(job: ShardJob, *, workers: int = 1) -> int:
    rows = sum(write_shards(job, open_job(job), workers=workers))
    finish_job(job, versions={})
    return rows


def opened(folder: Path, name: str = "x", **options: Any) -> Source:
    [source] = load_sources({name: {"path": str(folder / name), **options}})
    return source


def assert_same(a: Source, b: Source) -> None:
    rows = np.random.default_rng(0).permutation(a.num_rows)
    assert (a.name, a.num_rows, a.num_dropped) == (b.name, b.num_rows, b.num_dropped)
    assert (a.roles, a.prompts) == (b.roles, b.prompts)
    assert a.read(rows)[0] == b.read(rows)[0]
    for one, two in (
        (a.labels(), b.labels()),
        (a.keys(), b.keys()),
        (a.text_hashes(), b.text_hashes()),
        (a.text_lengths(), b.text_lengths()),
    ):
        assert one is not None
        assert two is not None
        assert one.dtype == two.dtype
        assert one.tolist() == two.tolist()


def test_rows_hashes_labels_keys_and_lengths(tmp_path: Path) -> None:
    source = raw(tmp_path, prompts={"pos": "p: "})
    assert write(job_of(source, tmp_path / "out")) == 49
    assert list((tmp_path / "out" / "x").glob(".*")) == []
    prepared = opened(tmp_path / "out")
    assert_same(source, prepared)
    roles = json.loads((tmp_path / "out" / "x" / MANIFEST).read_text())["roles"]
    assert "prompt" not in roles  # of few
    assert isinstance(prepared.text_hashes(), np.memmap)
    assert len(pickle.dumps(prepared)) < 20_000
    assert_same(source, pickle.loads(pickle.dumps(prepared)))
    first = raw(tmp_path, limit=21)  # of which one is dropped; a limit counts raw rows
    assert opened(tmp_path / "out", limit=20).keys().tolist() == first.keys().tolist()  # type: ignore[union-attr]


def test_a_folder_of_several_sources(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(job_of(raw(tmp_path, name), tmp_path / "out"))
    write_json(tmp_path / "out" / MANIFEST, {"format": 1, "sources": ["b", "a"]})
    sources = load_sources(str(tmp_path / "out"))
    assert [source.name for source in sources] == ["b", "a"]
    twice = {"b": str(tmp_path / "raw.jsonl"), "all": str(tmp_path / "out")}
    with pytest.raises(ConfigError, match="holds a source 'b', and another source has that name"):
        load_sources(twice)


def test_stored_tokens_are_those_of_the_collator(tmp_path: Path) -> None:
    source = raw(tmp_path)
    write(job_of(source, tmp_path / "out", tokens=True))
    prepared = opened(tmp_path / "out")
    assert prepared.tokens is not None
    rows = np.array([48, 3, 15, 16, 0])
    for guide in (None, tokenizer_of(12)):
        collator = Collator(tokenizer=tokenizer_of(), prompts=PROMPTS, guide_tokenizer=guide)
        batches = [collator(s, rows, step=0, num_global_rows=5) for s in (source, prepared)]
        assert_equal_batches(*batches)
        assert bool(batches[0].guide_chunks) == (guide is not None)
    check_stored_tokens([prepared], collator)
    empty = collator(prepared, rows[:0], step=0, num_global_rows=5)
    assert (empty.chunks, empty.num_rows) == ((), 0)


def test_stored_tokens_spare_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(job_of(raw(tmp_path), tmp_path / "out", tokens=True))
    prepared = opened(tmp_path / "out")
    monkeypatch.setattr(Source, "read", lambda *args: pytest.fail("texts were read"))
    Collator(tokenizer=tokenizer_of())(prepared, np.arange(5), step=0, num_global_rows=5)


def test_rows_of_several_sources_in_one_batch(tmp_path: Path) -> None:
    sources = [
        raw(tmp_path, name) for name in ("a", "b")
    ]  # the same rows, of which other ones are drawn
    for source, tokens in zip(sources, (True, False)):
        write(job_of(source, tmp_path / "some", tokens=tokens))
        write(job_of(source, tmp_path / "all", tokens=True))
    item = PlannedSlice(0, -1, np.array([7, 1, 7, 40]), 4, np.array([1, 0, 0, 1]))
    collator = Collator(tokenizer=tokenizer_of(), prompts=PROMPTS)
    wanted = BatchDataset(sources, collator)[item]
    hashes = [sources[s].text_hashes()[:, r] for s, r in ((1, 7), (0, 1), (0, 7), (1, 40))]
    assert wanted.text_ids.T.tolist() == np.stack(hashes).tolist()
    labels = [sources[s].labels()[r] for s, r in ((1, 7), (0, 1), (0, 7), (1, 40))]  # type: ignore[index]
    read = read_mixed(sources, np.array([1, 0, 0, 1]), item.rows, want_texts=True)
    one_by_one = [sources[s].read(np.array([r]))[0] for s, r in ((1, 7), (0, 1), (0, 7), (1, 40))]
    assert read.texts == [[row[column][0] for row in one_by_one] for column in range(2)]
    assert wanted.labels is not None
    assert wanted.labels.tolist() == labels
    for folder in ("some", "all"):
        prepared = [opened(tmp_path / folder, name) for name in ("a", "b")]
        assert_equal_batches(wanted, BatchDataset(prepared, collator)[item])


def assert_equal_batches(a: Any, b: Any) -> None:
    def flat(value: Any) -> list[Any]:
        return [x for part in value for x in flat(part)] if isinstance(value, tuple) else [value]

    left, right = flat(a), flat(b)
    assert len(left) == len(right)
    for one, two in zip(left, right):
        same = torch.equal if isinstance(one, torch.Tensor) else np.array_equal
        assert same(one, two)


def test_a_stopped_run_goes_on_with_the_missing_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = raw(tmp_path)
    job = job_of(source, tmp_path / "out", tokens=True)
    assert open_job(job) == [0, 1, 2, 3]
    written = write_shards(job, [0, 1, 2, 3], workers=1)
    next(written)
    # Killed in the middle of the second shard: its folder has not got its name yet.
    monkeypatch.setattr(shards, "write_tokens", lambda *a, **k: (_ for _ in ()).throw(KeyError))
    with pytest.raises(KeyError):
        next(written)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="is a folder"):
        opened(tmp_path / "out")
    stamp = (job.shard(0) / "rows.arrow").stat().st_mtime_ns
    assert open_job(job) == [1, 2, 3]
    assert write(job) == 33
    assert (job.shard(0) / "rows.arrow").stat().st_mtime_ns == stamp
    assert_same(source, opened(tmp_path / "out"))
    assert open_job(job) == []
    assert write(job) == 0
    assert list(job.folder.glob(".*")) == []


def test_shards_of_something_else_are_not_mixed(tmp_path: Path) -> None:
    source = raw(tmp_path)
    write(job_of(source, tmp_path / "out"))
    for changed, part in (
        (job_of(source, tmp_path / "out", shard_rows=8), "shard_rows"),
        (job_of(source, tmp_path / "out", tokens=True), "tokens"),
        (job_of(raw(tmp_path, limit=30), tmp_path / "out"), "source"),
    ):
        with pytest.raises(ConfigError, match=f"was begun with another {part} "):
            open_job(changed)
    (tmp_path / "mine" / "x").mkdir(parents=True)
    (tmp_path / "mine" / "x" / "letter.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds other files"):
        open_job(job_of(source, tmp_path / "mine"))


@pytest.mark.parametrize(
    ("tokenizer", "prompts", "part"),
    [
        (tokenizer_of(10), PROMPTS, "max_length=9, but the encoder has max_length=10"),
        (tokenizer_of(9, ["more"]), PROMPTS, "tokenizer="),
        (tokenizer_of(), {}, r"prompts=\['red: ', ''\], but the encoder has prompts=\['', ''\]"),
    ],
)
def test_tokens_of_another_encoder_are_refused(
    tmp_path: Path, tokenizer: TextTokenizer, prompts: dict[str, str], part: str
) -> None:
    write(job_of(raw(tmp_path), tmp_path / "out", tokens=True))
    collator = Collator(tokenizer=tokenizer, prompts=prompts)
    with pytest.raises(ConfigError, match=part) as error:
        check_stored_tokens([opened(tmp_path / "out")], collator)
    assert "data.train.x.path holds tokens made with" in str(error.value)


def test_what_was_decided_when_preparing(tmp_path: Path) -> None:
    write(job_of(raw(tmp_path, on_empty="error", limit=4), tmp_path / "out"))
    for options, word in (
        ({"columns": {"query": "pos", "positive": "query"}}, "columns asks for"),
        ({"columns": {"key": "other"}}, "names 'other'"),
        ({"on_empty": "drop"}, "on_empty='drop' takes effect when data are prepared"),
        ({"csv": {"delimiter": ";"}}, "x.csv=.* takes effect when data are prepared"),
        ({"lists": False}, "x.lists=false takes effect when data are prepared"),
        ({"format": "beir"}, "x.format='beir' takes effect when data are prepared"),
    ):
        with pytest.raises(ConfigError, match=word):
            opened(tmp_path / "out", **options)
    assert opened(tmp_path / "out", columns={"key": "sku"}, format="auto").num_rows == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        open_job(job_of(raw(tmp_path), tmp_path / "file"))


def test_a_manifest_of_something_else_is_none(tmp_path: Path) -> None:
    for text in ("{", "[1]", '{"name": "app"}'):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(ConfigError, match="is a folder"):
            load_sources(str(tmp_path))


def test_damage_is_named(tmp_path: Path) -> None:
    job = job_of(raw(tmp_path), tmp_path / "out")
    write(job)
    hashes = np.load(job.folder / "text_hashes.npy")
    np.save(job.folder / "text_hashes.npy", hashes[:, :-1])
    with pytest.raises(ConfigError, match="is damaged"):
        opened(tmp_path / "out").text_hashes()
    (job.shard(1) / "rows.arrow").write_bytes(b"")
    with pytest.raises(ConfigError, match="is damaged"):
        opened(tmp_path / "out")
