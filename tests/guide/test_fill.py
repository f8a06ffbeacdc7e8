"""Filling a table: every distinct text once, whatever is interrupted or runs beside it."""

from __future__ import annotations

import os
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.guides import (
    ALONE,
    Counter,
    distinct_texts,
    fill_table,
    make_guide,
    make_source,
    rows_of,
)
from inbatch.data.hashing import hash_texts
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.guide import Process
from inbatch.guide.fill import FillSettings, fill
from inbatch.guide.missing import columns_by_prompt, find_missing
from inbatch.guide.store import Table


def _check_rows(table: Table, encoder: Encoder, texts: list[str], prompt: str = "") -> None:
    wanted = encoder.encode([prompt + text for text in texts])
    torch.testing.assert_close(
        torch.from_numpy(rows_of(table, texts)), wanted, atol=1e-6, rtol=1e-5
    )


def test_each_distinct_text_is_embedded_once(tiny_bert: Path, tmp_path: Path) -> None:
    encoder, source, table = make_guide(tiny_bert), make_source(), Table(tmp_path, 32, "float32")
    texts, counter = distinct_texts(source), Counter(encoder)
    assert len(texts) < 3 * source.num_rows  # some occur twice
    assert fill_table(encoder, source, table) == len(texts) == counter.num_texts
    assert len(table.open()) == len(texts)
    assert 1 < len(table.shards()) <= 7  # of 16 texts or up to one chunk more
    _check_rows(table, encoder, texts)
    assert fill_table(encoder, source, table) == 0
    more = make_source(60)
    new = set(distinct_texts(more)) - set(texts)
    assert fill_table(encoder, more, table) == len(new) > 0


def test_float16_rows_are_rounded_once(tiny_bert: Path, tmp_path: Path) -> None:
    encoder, source = make_guide(tiny_bert), make_source()
    table = Table(tmp_path, 32, "float16")
    fill_table(encoder, source, table)
    texts = distinct_texts(source)
    wanted = encoder.encode(texts).numpy()
    assert np.abs(rows_of(table, texts) - wanted).max() <= 2.0**-11 * np.abs(wanted).max() * 1.01


def test_prompts_are_put_in_front(tiny_bert: Path, tmp_path: Path) -> None:
    encoder, source = make_guide(tiny_bert), make_source()
    columns = columns_by_prompt([source], {"query": "red phone ", "document": "blue "})
    assert {p: [c.number for c in cs] for p, cs in columns.items()} == {
        "red phone ": [0],
        "blue ": [1, 2],
    }
    for name, prompt in enumerate(columns):
        table = Table(tmp_path / str(name), 32, "float32")
        missing = find_missing(columns[prompt], table)
        fill(
            encoder,
            missing,
            table,
            prompt=prompt,
            process=ALONE,
            settings=FillSettings(chunk_tokens=256),
            compute_dtype=torch.float32,
        )
        _check_rows(table, encoder, missing.read(), prompt)


def test_ranks_divide_the_texts(tiny_bert: Path, tmp_path: Path) -> None:
    encoder, source, table = make_guide(tiny_bert), make_source(100), Table(tmp_path, 32, "float32")
    texts = distinct_texts(source)
    parts = [
        fill_table(
            encoder,
            source,
            table,
            process=Process(device=torch.device("cpu"), rank=rank, world_size=3),
        )
        for rank in range(3)
    ]
    assert sum(parts) == len(texts) == len(table.open())
    assert min(parts) > len(texts) / 5
    _check_rows(table, encoder, texts)


def _fill_and_die(path: Path, folder: Path) -> None:
    """Die as a killed process does: in the middle of writing the third shard."""
    torch.set_num_threads(1)
    written, save = [], np.save

    def dying_save(file: object, array: np.ndarray) -> None:
        written.append(array)
        if len(written) == 6:  # keys and rows of each shard
            file.write(b"half")  # type: ignore[attr-defined]
            file.flush()  # type: ignore[attr-defined]
            os._exit(9)
        save(file, array)  # type: ignore[arg-type]

    np.save = dying_save
    fill_table(make_guide(path), make_source(), Table(folder, 32, "float32"))


def test_a_killed_fill_goes_on_after_its_last_shard(tiny_bert: Path, tmp_path: Path) -> None:
    process = get_context("fork").Process(target=_fill_and_die, args=(tiny_bert, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    table, encoder, source = Table(tmp_path, 32, "float32"), make_guide(tiny_bert), make_source()
    assert len(table.shards()) == 2
    assert list(tmp_path.glob(".shard-*.new")), "the kill should hit a half-written shard"
    texts, counter = distinct_texts(source), Counter(encoder)
    kept = len(table.open())
    assert 32 <= kept < len(texts)
    assert fill_table(encoder, source, table) == len(texts) - kept == counter.num_texts
    _check_rows(table, encoder, texts)


def _chunks(encoder: Encoder) -> list[list[int]]:
    """The token ids of each chunk that the encoder will get."""
    chunks: list[list[int]] = []
    encoder.register_forward_hook(lambda m, args, out: chunks.append(args[0].input_ids.tolist()))
    return chunks


@pytest.mark.parametrize("num_chunks", [1, 2, 5, 9])
def test_a_stopped_fill_goes_on_with_the_same_chunks(
    tiny_bert: Path, tmp_path: Path, num_chunks: int
) -> None:
    source, settings = make_source(), {"chunk_tokens": 64, "window_texts": 24, "shard_texts": 5}
    encoders = [make_guide(tiny_bert) for _ in range(3)]
    whole, first, rest = map(_chunks, encoders)
    fill_table(encoders[0], source, Table(tmp_path / "whole", 32, "float32"), **settings)
    table = Table(tmp_path / "parts", 32, "float32")
    fill_table(encoders[1], source, table, go_on=lambda: len(first) < num_chunks, **settings)
    assert len(first) == num_chunks
    assert len(table.open()) == sum(map(len, first))
    fill_table(encoders[2], source, table, **settings)
    assert sorted(first + rest) == sorted(whole)


def test_chunks_are_halved_where_memory_runs_out(tiny_bert: Path, tmp_path: Path) -> None:
    encoder, source, table = make_guide(tiny_bert), make_source(), Table(tmp_path, 32, "float32")
    sizes: list[int] = []

    def small_memory(module: object, args: tuple) -> None:
        sizes.append(args[0].num_texts)
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = encoder.register_forward_pre_hook(small_memory)
    texts = distinct_texts(source)
    assert fill_table(encoder, source, table) == len(texts)
    failed = [size for size in sizes if size > 3]
    assert 1 <= len(failed) <= 4  # in any order of chunks: further ones begin with what was found
    hook.remove()
    _check_rows(table, encoder, texts)
    encoder.register_forward_pre_hook(lambda module, args: small_memory(module, (_Many(),)))
    with pytest.raises(torch.OutOfMemoryError):
        fill_table(encoder, make_source(seed=5), table)


class _Many:
    num_texts = 4


def _fill_beside_others(path: Path, folder: Path, results: Path) -> None:
    torch.set_num_threads(1)
    num = fill_table(make_guide(path), make_source(200), Table(folder, 32, "float32"))
    (results / str(os.getpid())).write_text(str(num))


def test_runs_fill_one_table_at_once(tiny_bert: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    arguments = (tiny_bert, tmp_path / "table", results)
    runs = [
        get_context("fork").Process(target=_fill_beside_others, args=arguments) for _ in range(3)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0, 0]
    source, table = make_source(200), Table(tmp_path / "table", 32, "float32")
    texts = distinct_texts(source)
    _check_rows(table, make_guide(tiny_bert), texts)
    assert sum(int(file.read_text()) for file in results.iterdir()) >= len(texts)


def test_what_others_add_meanwhile_is_not_computed(tiny_bert: Path, tmp_path: Path) -> None:
    encoder, source, table = make_guide(tiny_bert), make_source(), Table(tmp_path, 32, "float32")
    texts = distinct_texts(source)
    counter = Counter(encoder)

    def another_run_ends(*_: object) -> None:
        hook.remove()
        other = make_guide(tiny_bert)
        table.add(hash_texts(texts), other.encode(texts).numpy())

    hook = encoder.register_forward_hook(another_run_ends)
    embedded = fill_table(encoder, source, table)
    # One window is begun by then, and one may be tokenized.
    assert embedded == counter.num_texts <= 32 < len(texts)


def test_stale_hashes_are_noticed(tiny_bert: Path, tmp_path: Path) -> None:
    source = make_source()
    missing = find_missing(columns_by_prompt([source], {})[""], Table(tmp_path, 32, "float32"))
    missing[:5].read()
    moved = replace(missing, keys_n=missing.keys_n + np.uint64(1))
    with pytest.raises(ConfigError, match="cache_dir"):
        moved.read()


def test_progress_is_said(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("inbatch.guide.fill.SAY_S", 0.0)
    process = Process(device=torch.device("cpu"), say=lines.append)
    source = make_source()
    fill_table(make_guide(tiny_bert), source, Table(tmp_path, 32, "float32"), process=process)
    num = len(distinct_texts(source))
    assert lines[-1].startswith(f"guide  {num} of {num} texts  ")
    assert lines[-1].endswith("left 0:00:00")
