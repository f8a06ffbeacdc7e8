"""`inbatch mine` as a whole: on one rank and two, killed and started again, and what it writes trained on."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import run_train
from helpers.tiny import save_tiny_bert, tiny_texts
from inbatch.cli.overrides import complete_overrides
from inbatch.config.check_mine import check_mine
from inbatch.config.composition import compose
from inbatch.config.schema import CONF
from inbatch.corpus.embed import EmbedSettings, embed_corpus
from inbatch.corpus.texts import TextList
from inbatch.data.sources.load import load_sources
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.guide import Process
from inbatch.mining import run as mining_run
from inbatch.mining.blocks import Block
from inbatch.run.mine import mine

ROWS = 45


def run_mine(*overrides: str) -> Path:
    """Mine in this process; returns the folder."""
    return mine(check_mine(compose("mine", complete_overrides(overrides, CONF))))


@pytest.fixture(scope="module")
def options(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pairs with repeated queries and keys, a corpus with repeated texts, blocks of a few queries."""
    folder = tmp_path_factory.mktemp("mining")
    queries, positives = tiny_texts(ROWS, seed=1), tiny_texts(ROWS, seed=2)
    queries[-5:] = queries[:5]
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query", "positive", "product"])
        rows.writerows(zip(queries, positives, [f"p{i % 20}" for i in range(ROWS)]))
    corpus = tiny_texts(120, seed=3)
    (folder / "corpus.txt").write_text("\n".join([*corpus, *corpus[:7], positives[0]]) + "\n")
    return [
        f"encoder.model={tiny_bert}",
        f"data.train={folder / 'pairs.csv'}",
        "data.columns.key=product",
        f"data.cache_dir={folder / 'cache'}",
        f"mine.corpus={folder / 'corpus.txt'}",
        "mine.num_negatives=3",
        "mine.range_min=2",
        "mine.choice=softmax",
        "mine.block_queries=8",
        "mine.shard_rows=20",
        "trainer.accelerator=cpu",
    ]


@pytest.fixture(scope="module")
def mined(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one rank mines without a stop."""
    return run_mine(*options, f"output_dir={tmp_path_factory.mktemp('mined') / 'whole'}")


def results(folder: Path) -> dict[str, bytes]:
    """Everything that was mined, by its name."""
    names = [*folder.glob("mined-*"), *folder.glob("report.*"), *folder.glob("blocks/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(names)}


def test_rows_report_and_scores(mined: Path, options: list[str]) -> None:
    names = list(results(mined))
    assert [n for n in names if n.startswith("mined")] == [
        f"mined-0000{i}.parquet" for i in range(3)
    ]
    report = json.loads((mined / "report.json").read_text())
    assert report["rows"]["read"] == report["rows"]["written"] == ROWS
    assert report["queries"] == len(list(mined.glob("blocks/*"))) * 8 == 40
    assert report["documents"] < 45 + 128
    counts = report["queries_by_number_of_negatives"]
    assert sum(counts) == 40
    assert sum(n * c for n, c in enumerate(counts)) == report["negatives"] > 80
    assert report["candidates"]["left_out"]["positive"] > 0
    assert report["scores"]["negatives"]["count"] == report["negatives"]
    assert sum(report["scores"]["histogram"]["negatives"]) == report["negatives"]
    text = (mined / "report.md").read_text()
    assert "## Examples" in text
    (source,) = load_sources(
        {"train": {"path": str(mined / "mined-*.parquet"), "columns": {"key": "key"}}},
        cache_dir=str(mined.parent / "cache"),
    )
    assert (source.num_rows, source.is_ragged, source.num_without_scores()) == (ROWS, True, 0)
    assert source.keys() is not None


def test_two_ranks_mine_the_same(mined: Path, options: list[str], tmp_path: Path) -> None:
    run(_mine, 2, [*options, "trainer.devices=2", f"output_dir={tmp_path / 'two'}"])
    assert results(tmp_path / "two") == results(mined)


def _mine(rank: int, world_size: int, options: list[str]) -> None:
    quiet()
    run_mine(*options)


def test_a_killed_run_goes_on(mined: Path, options: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    options = [*options, f"output_dir={folder}"]
    with pytest.raises(AssertionError, match="ended without a result"):
        run(_mine_until_killed, 1, options)
    assert sorted(path.name for path in folder.glob("blocks/block*")) == [
        f"block-00000{i}.npz" for i in range(2)
    ]
    begun = {path: path.stat().st_mtime_ns for path in folder.glob("blocks/block*")}
    run_mine(*options)
    assert results(folder) == results(mined)
    assert {path: path.stat().st_mtime_ns for path in begun} == begun
    for changed, key in (
        ("mine.num_negatives=4", "mine.num_negatives was 3 and is 4"),
        ("seed=1", "seed was 42"),
    ):
        with pytest.raises(ConfigError, match=f"output_dir.* holds another mining .{key}"):
            run_mine(*options, changed)


def _mine_until_killed(rank: int, world_size: int, options: list[str]) -> None:
    """Mine until the third block is about to be written."""
    write = mining_run.write_block

    def write_or_die(folder: Path, number: int, block: Block) -> None:
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        write(folder, number, block)

    mining_run.write_block = write_or_die
    run_mine(*options)


def test_what_was_mined_trains(mined: Path, tmp_path: Path) -> None:
    output = run_train(
        f"data.train={mined / 'mined-*.parquet'}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.columns.key=key",
        "global_batch_size=15",
        f"output_dir={tmp_path / 'run'}",
    )
    assert (output / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("output", ["triplet", "n-tuple"])
def test_other_forms_are_read_back(
    output: str, mined: Path, options: list[str], tmp_path: Path
) -> None:
    folder = run_mine(
        *options, f"mine.output={output}", "mine.files=jsonl", f"output_dir={tmp_path / 'out'}"
    )
    (source,) = load_sources(str(folder / "mined-*.jsonl"), cache_dir=str(tmp_path / "cache"))
    report = json.loads((folder / "report.json").read_text())
    assert len(source.columns) == (3 if output == "triplet" else 5)
    assert not source.is_ragged
    assert source.num_rows >= report["rows"]["written"]
    assert (source.scores() is None) == (output == "n-tuple")


def test_stored_embeddings_of_the_corpus_are_taken(
    mined: Path, options: list[str], tiny_bert: Path, tmp_path: Path
) -> None:
    corpus = next(o for o in options if o.startswith("mine.corpus=")).partition("=")[2]
    texts = Path(corpus).read_text().splitlines()
    stored = tmp_path / "stored"
    embed_corpus(
        build_encoder(str(tiny_bert)),
        TextList(texts),
        stored,
        process=Process(device=torch.device("cpu")),
        settings=EmbedSettings(),
    )
    more = [f"mine.corpus_embeddings={stored}"]
    folder = run_mine(*options, *more, f"output_dir={tmp_path / 'mined'}")
    own, other = (json.loads((f / "report.json").read_text()) for f in (mined, folder))
    assert own["examples"] == other["examples"]
    assert not (folder / "embeddings" / "model" / "documents").exists()
    short = tmp_path / "short.txt"
    short.write_text("\n".join(texts[:-1]))
    with pytest.raises(ConfigError, match=r"are of other texts than mine.corpus .128, now 127"):
        run_mine(*options, *more, f"mine.corpus={short}", f"output_dir={tmp_path / 'no'}")


def test_a_guide_filters_and_gives_scores(mined: Path, options: list[str], tmp_path: Path) -> None:
    guide = save_tiny_bert(tmp_path / "guide", seed=5)
    more = [f"guide.model={guide}", "mine.guide_margin=0", f"output_dir={tmp_path / 'out'}"]
    folder = run_mine(*options, *more)
    report = json.loads((folder / "report.json").read_text())
    assert report["candidates"]["left_out"]["guide"] > 0
    assert report["guide_scores"]["difference"]["min"] >= 0  # of the lowest positive
    rows = pq.read_table(folder / "mined-00000.parquet").to_pylist()
    encoder = build_encoder(str(guide)).eval()
    row = next(row for row in rows if row["negative"])
    query, *documents = encoder.encode([row["query"], *row["positive"], *row["negative"]])
    scores = torch.cosine_similarity(query[None], torch.stack(documents)).tolist()
    assert [*row["positive_score"], *row["negative_score"]] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mine.num_negativ=3"], "mine.num_negativ.*num_negatives"),
        (["mine.range_max=4", "mine.range_min=3"], "mine.range_max=4 leaves fewer than 3 ranks"),
        (["mine.min_negatives=4"], "mine.min_negatives=4 is above mine.num_negatives=3"),
        (
            ["mine.percentage=99", "mine.relative_margin=0.1"],
            "mine.percentage=99.0 says the same as mine.relative_margin",
        ),
        (
            ["mine.choice=top", "mine.temperature=1"],
            "mine.temperature=1.0 has no effect on mine.choice=top",
        ),
        (["mine.guide_margin=0"], "mine.guide_margin=0.0 needs a guide: set guide.model"),
        (["mine.scores=guide"], "mine.scores='guide' needs a guide"),
        (["guide=minilm", "mine.scores=model"], "guide.model=.* has no effect"),
        (["mine.output=n-tuple", "mine.scores=model"], "mine.scores='model' cannot be kept"),
        (["mine.faiss_probes=3"], "mine.faiss_probes=3 has no effect on an exact search"),
        (
            ["mine.corpus=null", "mine.corpus_embeddings=x"],
            "mine.corpus_embeddings='x' belongs to a corpus",
        ),
        (["mine.corpus=nowhere.txt"], "mine.corpus='nowhere.txt' matches no file"),
        (
            ["mine.max_score=0.2", "mine.min_score=0.3"],
            "mine.min_score=0.3 is above mine.max_score",
        ),
        (["mine.max_score=-1", "mine.min_negatives=1"], "mine.min_negatives=1 leaves no row"),
        (["encoder.similarity=euclidean"], "encoder.similarity='euclidean' is a distance"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes_are_one_sentence(
    overrides: list[str], message: str, options: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_mine(*options, f"output_dir={tmp_path / 'out'}", *overrides)


def test_faiss_is_an_extra(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(
        ConfigError, match=r"mine.search='faiss' needs faiss, .*pip install 'inbatch.faiss.'"
    ):
        run_mine(*options, "mine.search=faiss", f"output_dir={tmp_path / 'out'}")
