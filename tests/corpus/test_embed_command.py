"""`inbatch embed`: from files of every kind to a store, one .npy file or parquet."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings

from helpers.distributed import run
from helpers.tiny import tiny_texts
from inbatch.cli.overrides import complete_overrides
from inbatch.config.check_embed import check_embed
from inbatch.config.composition import compose
from inbatch.config.schema import CONF
from inbatch.corpus import open_embeddings
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.run.embed import embed

TEXTS = tiny_texts(40, min_words=1, max_words=20)
IDS = [f"offer-{number}" for number in range(40)]


@pytest.fixture(scope="module")
def model(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers directory with a prompt for each role."""
    path = tmp_path_factory.mktemp("model") / "model"
    prompts = {"query": "red phone ", "document": "blue case "}
    build_encoder(str(tiny_bert), prompts=prompts, normalize=True).save(path)
    return path


@pytest.fixture(scope="module")
def oracle(model: Path) -> SentenceTransformer:
    return SentenceTransformer(str(model), device="cpu")


@pytest.fixture(scope="module")
def offers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("offers") / "offers.parquet"
    pq.write_table(pa.table({"id": IDS, "title": TEXTS, "price": range(40)}), path)
    return path


def command(*overrides: str) -> Path:
    typed = ["trainer.accelerator=cpu", "precision=fp32", *overrides]
    return embed(check_embed(compose("embed", complete_overrides(typed, CONF))))


def options(model: Path, texts: Path, folder: Path, *more: str) -> list[str]:
    common = [f"encoder.model={model}", f"data.texts={texts}", f"output_dir={folder / 'out'}"]
    return [*common, f"data.cache_dir={folder / 'cache'}", *more]


def rows_of(path: Path) -> np.ndarray:
    stored = open_embeddings(path)
    return np.array(stored.rows(0, len(stored)))


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ([], {}),
        (["role=query"], {"prompt_name": "query"}),
        (["role=document"], {"prompt_name": "document"}),
        (["role=query", "prompt=mini 5g: "], {"prompt": "mini 5g: "}),
        (["encoder.truncate_dim=8"], {"truncate_dim": 8}),
        (
            ["encoder.truncate_dim=8", "normalize=true"],
            {"truncate_dim": 8, "normalize_embeddings": True},
        ),
        (["dtype=binary"], {"precision": "binary"}),
        (
            ["dtype=ubinary", "encoder.truncate_dim=16"],
            {"precision": "ubinary", "truncate_dim": 16},
        ),
        (["dtype=float16"], {}),
    ],
    ids=["plain", "query", "document", "prompt", "cut", "unit", "binary", "ubinary", "float16"],
)
def test_values_are_those_of_sentence_transformers(
    settings: list[str],
    wanted: dict[str, object],
    model: Path,
    offers: Path,
    oracle: SentenceTransformer,
    tmp_path: Path,
) -> None:
    path = command(*options(model, offers, tmp_path, "data.columns.text=title", *settings))
    found, expected = rows_of(path), oracle.encode(TEXTS, **wanted)  # type: ignore[arg-type]
    if expected.dtype == np.float32:
        np.testing.assert_allclose(found, expected, atol=2e-6 if found.dtype == "float32" else 5e-4)
    else:
        bits = [np.unpackbits(rows.view(np.uint8), axis=1) for rows in (found, expected)]
        assert found.dtype == expected.dtype
        assert (bits[0] != bits[1]).sum() <= 1


def test_queries_get_the_ranges_of_their_corpus(
    model: Path, offers: Path, oracle: SentenceTransformer, tmp_path: Path
) -> None:
    title = ["data.columns.text=title", "dtype=int8"]
    corpus = command(*options(model, offers, tmp_path, *title))
    rows = oracle.encode(TEXTS)
    wanted = quantize_embeddings(rows, "int8")
    assert (np.abs(rows_of(corpus).astype(int) - wanted) > 1).sum() == 0
    assert (rows_of(corpus) != wanted).mean() < 0.01  # rounding beside the end of a step
    (tmp_path / "queries.txt").write_text("red phone\nblue case\n")
    given = ["dtype=int8", f"ranges={corpus}", f"output_dir={tmp_path / 'queries'}"]
    queries = command(*options(model, tmp_path / "queries.txt", tmp_path, *given))
    ranges = np.stack([rows.min(axis=0), rows.max(axis=0)])
    wanted = quantize_embeddings(oracle.encode(["red phone", "blue case"]), "int8", ranges=ranges)
    assert np.abs(rows_of(queries).astype(int) - wanted).max() <= 1


def _write(path: Path) -> None:
    rows = [{"_id": key, "title": "red", "text": text} for key, text in zip(IDS, TEXTS)]
    if path.suffix == ".csv":
        lines = [f"{key},{text}" for key, text in zip(IDS, TEXTS)]
        path.write_text("\n".join(["id,text", *lines]))
    elif path.suffix == ".tsv":
        lines = [f"{text}\t{key}" for key, text in zip(IDS, TEXTS)]
        path.write_text("\n".join(["query\tqid", *lines]))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".arrow":
        table = pa.table({"sentence": TEXTS})
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("\n".join(TEXTS).encode() + b"\n"))
    else:
        path.write_bytes("\ufeff".encode() + "\r\n".join(TEXTS).encode())


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "corpus.jsonl", "t.arrow", "t.txt", "t.txt.gz"])
def test_files_of_every_kind(name: str, model: Path, tmp_path: Path) -> None:
    _write(tmp_path / name)
    stored = open_embeddings(command(*options(model, tmp_path / name, tmp_path)))
    beir = name == "corpus.jsonl"
    wanted = build_encoder(str(model)).encode([f"red {t}" if beir else t for t in TEXTS])
    np.testing.assert_allclose(stored.rows(0, 40), wanted, atol=2e-6)
    has_ids = name in ("t.csv", "t.tsv", "corpus.jsonl")
    assert stored.ids(0, 40) == (IDS if has_ids else list(map(str, range(40))))


@pytest.mark.parametrize("has_ids", [True, False], ids=["ids", "numbers"])
def test_one_file_in_place_of_the_parts(
    has_ids: bool, model: Path, offers: Path, tmp_path: Path
) -> None:
    own = [
        "data.columns.text=title",
        "shard_texts=16",
        *([] if has_ids else ["data.columns.id=null"]),
    ]
    rows = rows_of(command(*options(model, offers, tmp_path, *own)))
    line = options(model, offers, tmp_path, *own, f"output_dir={tmp_path / 'npy'}")
    path = command(*line, "format=npy")
    assert path == tmp_path / "npy" / "embeddings.npy"
    assert np.array_equal(np.load(path), rows)
    assert np.array_equal(rows_of(path.parent), rows)
    assert not list(path.parent.glob("part-*"))
    assert not list(path.parent.glob("ids-*"))
    assert (
        open_embeddings(path.parent).ids(3, 5)
        == (IDS if has_ids else ["0", "1", "2", "3", "4"])[3:5]
    )
    if has_ids:
        assert np.load(path.parent / "ids.npy").tolist() == IDS
    written = path.stat().st_mtime_ns
    assert command(*line, "format=npy") == path
    assert path.stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match=r"as embeddings.npy: set format=npy"):
        command(*line, "format=parquet")
    for dtype in ("float32", "float16", "ubinary"):
        folder = [f"output_dir={tmp_path / dtype}", f"dtype={dtype}", "format=parquet"]
        table = pq.read_table(command(*options(model, offers, tmp_path, *own, *folder)))
        assert table.column("id").to_pylist() == (IDS if has_ids else list(range(40)))
        values = np.array(table.column("embedding").to_pylist())
        if dtype == "ubinary":
            assert np.array_equal(values, np.packbits(rows > 0, axis=1))
        else:
            assert np.array_equal(values, rows.astype(dtype))
        with pytest.raises(ConfigError, match=r"embeddings.parquet cannot be mapped"):
            open_embeddings(tmp_path / dtype)


def test_rows_that_cannot_be_used_are_left_out_on_request(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.txt").write_bytes(b"red phone\n\nblue case\nf\xfcr\n \ngold cable")
    line = options(model, tmp_path / "t.txt", tmp_path)
    with pytest.raises(ConfigError, match=r"data.texts='.*t.txt' is not UTF-8 \(line 4\)"):
        command(*line)
    kept = open_embeddings(command(*line, "data.texts.on_bad_row=drop"))
    assert kept.ids(0, len(kept)) == ["0", "2", "5"]
    printed = capsys.readouterr().out
    assert "data.read as: texts: column 'text'" in printed
    assert "1 that are not UTF-8 (t.txt, line 4)" in printed
    assert "2 with an empty text in column 'text' (t.txt, line 2; t.txt, line 5)" in printed


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (
            "id,title\n1,red\n2,\n",
            [],
            r"t.csv' has an empty text in column 'title', line 3: fill it",
        ),
        ("id,title\n1,red\n,blue\n", [], r"has no id \(null\) in column 'id', line 3"),
        ("id,title\n1,red\n2\n", [], r"t.csv' has .*line 3"),
        ("a,b\nred,blue\n", [], r"has the columns \['a', 'b'\], none of which could be its texts"),
        ("text,query\na,b\n", [], r"several of which could be its texts: set data.columns.text"),
        (
            "a,b\nred,blue\n",
            ["data.columns.text=c"],
            r"data.columns.text names 'c', which is none of",
        ),
        ("a,b\nred,blue\n", ["data.columns.text={a} {c}"], "data.columns.text names 'c'"),
        ("a\nred\n", ["data.columns.id=b"], r"data.columns.id='b' is none of the columns \['a'\]"),
        ("a\nred\n", ["data.columns.key=b"], "data.columns.key is not a valid key"),
        ("a\nred\n", ["data.texts.negatives=first"], "data.texts.negatives is not a valid key"),
        ("a\n", [], "holds no rows"),
        (
            "a\n \n",
            ["data.texts.on_empty=drop"],
            "holds no rows but those left out: 1 with an empty",
        ),
        ("a\nred\n", ["role=queri"], "role='queri' is neither a role .*: did you mean 'query'"),
        ("a\nred\n", ["dtype=int4"], "dtype='int4' is not one of float32"),
        ("a\nred\n", ["precision=fp16"], "precision='fp16' needs a GPU"),
        ("a\nred\n", ["dtype=int8", "ranges=nothing"], "ranges='nothing' holds no ranges"),
        ("a\nred\n", ["encoder.truncate_dim=33"], "encoder.truncate_dim=33 is out of range"),
        (
            "a\nred\n",
            ["chunk_token=8"],
            "chunk_token is not a valid key of the .*: did you mean 'chunk_tokens'",
        ),
        ("a\nred\n", ["output_dir=s3://bucket/x"], "output_dir='s3://.* is not a folder of this"),
    ],
)
def test_mistakes_are_one_sentence(
    content: str, more: list[str], message: str, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ConfigError, match=message):
        command(*options(model, tmp_path / "t.csv", tmp_path, *more))


def test_damaged_files_are_named(model: Path, offers: Path, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(offers.read_bytes()[:-50])
    with pytest.raises(ConfigError, match=r"t.parquet' .*"):
        command(*options(model, tmp_path / "t.parquet", tmp_path, "data.columns.text=title"))
    with pytest.raises(ConfigError, match=r"data.columns.text uses 'price', a column of int64"):
        command(*options(model, offers, tmp_path, "data.columns.text=price"))


def _on_ranks(rank: int, world_size: int, line: list[str]) -> None:
    command(*line)


def test_ranks_of_a_launcher_share_the_work(model: Path, offers: Path, tmp_path: Path) -> None:
    own = ["data.columns.text=title", "shard_texts=8", "format=npy"]
    alone = command(*options(model, offers, tmp_path, *own))
    line = options(model, offers, tmp_path, *own, f"output_dir={tmp_path / 'two'}")
    run(_on_ranks, 2, line)
    assert (tmp_path / "two" / "embeddings.npy").read_bytes() == alone.read_bytes()
