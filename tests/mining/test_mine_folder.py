"""Which folders `inbatch mine` goes on with, and which it refuses."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.tiny import save_tiny_bert, tiny_texts
from inbatch.cli.overrides import complete_overrides
from inbatch.cluster.lease import hold
from inbatch.config.check_mine import check_mine
from inbatch.config.composition import compose
from inbatch.config.schema import CONF
from inbatch.corpus.embed import EmbedSettings, embed_corpus
from inbatch.corpus.texts import TextList
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.files import remove
from inbatch.guide import Process
from inbatch.run.mine import mine

CORPUS = tiny_texts(40, seed=3)


def run_mine(*overrides: str) -> Path:
    return mine(check_mine(compose("mine", complete_overrides(overrides, CONF))))


@pytest.fixture(scope="module")
def options(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("folder")
    for name, rows in (
        ("pairs", zip(tiny_texts(12, seed=1), tiny_texts(12, seed=2), map(str, range(12)))),
        ("corpus", ((text, str(n % 9)) for n, text in enumerate(CORPUS))),
    ):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            header = ["query", "positive", "key"] if name == "pairs" else ["text", "key"]
            csv.writer(file).writerows([header, *rows])
    return [
        f"encoder.model={tiny_bert}",
        f"data.train={folder / 'pairs.csv'}",
        "data.columns.key=key",
        f"data.cache_dir={folder / 'cache'}",
        f"mine.corpus={folder / 'corpus.csv'}",
        "mine.corpus_columns.text=text",
        "mine.corpus_columns.key=key",
        "mine.num_negatives=2",
        "trainer.accelerator=cpu",
        f"output_dir={folder / 'out'}",
    ]


@pytest.fixture(scope="module")
def mined(options: list[str]) -> Path:
    return run_mine(*options)


def test_the_same_command_goes_on_without_embeddings(mined: Path, options: list[str]) -> None:
    rows, blocks = mined / "mined-00000.parquet", mined / "blocks"
    before, of_block = rows.read_bytes(), (blocks / "block-000000.npz").read_bytes()
    remove(mined / "embeddings")
    remove(blocks)
    run_mine(*options)
    assert rows.read_bytes() == before
    assert (blocks / "block-000000.npz").read_bytes() == of_block


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (["encoder.similarity=dot"], "encoder.similarity was .cosine. and is .dot."),
        (["+encoder.prompts.query=red "], "encoder.prompts.query was"),
        (["precision=bf16"], "precision was .fp32. and is .bf16."),
        (["mine.corpus={keys}"], "mine.corpus_columns.key was"),
        (["encoder.model={other}"], "weights of encoder was"),
    ],
    ids=["similarity", "prompt", "precision", "keys", "weights"],
)
def test_another_mining_is_refused(
    changes: list[str], key: str, mined: Path, options: list[str], tmp_path: Path
) -> None:
    if "{other}" in changes[0]:
        changes = [changes[0].format(other=save_tiny_bert(tmp_path / "other", seed=5))]
    if "{keys}" in changes[0]:  # the same texts
        with (tmp_path / "keys.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "key"), *((text, "1") for text in CORPUS)])
        changes = [changes[0].format(keys=tmp_path / "keys.csv")]
    remove(mined / "embeddings")  # which have records of their own
    with pytest.raises(ConfigError, match=f"holds another mining .{key}"):
        run_mine(*options, *changes)


@pytest.mark.parametrize("name", ["mined-00007.jsonl", "blocks/block-000000.npz", "index.faiss"])
def test_results_without_a_record_are_refused(
    name: str, options: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"output_dir.* holds {name} and no mine.json"):
        run_mine(*options, f"output_dir={tmp_path}")


def test_foreign_rows_are_refused(mined: Path, options: list[str]) -> None:
    foreign = mined / "mined-00009.parquet"
    foreign.touch()
    with pytest.raises(ConfigError, match=r"mined-00009.parquet is none of the files"):
        run_mine(*options)
    foreign.unlink()


def test_damaged_files_are_one_sentence(mined: Path, options: list[str]) -> None:
    block = mined / "blocks" / "block-000000.npz"
    whole = block.read_bytes()
    block.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"block-000000.npz is damaged: delete it"):
        run_mine(*options)
    block.unlink()
    run_mine(*options)
    assert block.read_bytes() == whole
    record = (mined / "mine.json").read_text()
    (mined / "mine.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"mine.json is damaged: delete the folder"):
        run_mine(*options)
    (mined / "mine.json").write_text(record)


def test_a_folder_in_use_is_left_alone(mined: Path, options: list[str]) -> None:
    unfinished = mined / ".block.x.new"
    unfinished.touch()
    with (
        hold(mined / "run.lease"),
        pytest.raises(ConfigError, match=r"output_dir=.* is in use by another run"),
    ):
        run_mine(*options)
    assert unfinished.exists()
    run_mine(*options)
    assert not unfinished.exists()


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"truncate": 8}, [], "have 8 dimensions, not 32"),
        ({"normalize": True}, ["encoder.similarity=dot"], "scaled to length one, which changes"),
    ],
    ids=["dimensions", "lengths"],
)
def test_stored_embeddings_of_another_form_are_refused(
    change: dict[str, object],
    more: list[str],
    message: str,
    tiny_bert: Path,
    options: list[str],
    tmp_path: Path,
) -> None:
    embed_corpus(
        build_encoder(str(tiny_bert), truncate_dim=8 if "truncate" in change else None),
        TextList(CORPUS),
        tmp_path / "stored",
        process=Process(device=torch.device("cpu")),
        settings=replace(EmbedSettings(), normalize="normalize" in change),
    )
    line = [*options, *more, f"mine.corpus_embeddings={tmp_path / 'stored'}"]
    with pytest.raises(ConfigError, match=f"mine.corpus_embeddings=.* {message}"):
        run_mine(*line, f"output_dir={tmp_path / 'out'}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["+mine.corpus_columns.id=nonsense"], "mine.corpus_columns.id is not a valid key"),
        (["mine.corpus_columns.key=nonsense"], "mine.corpus_columns.key='nonsense' is none of"),
        (["mine.output=n-tuple", "mine.min_negatives=1"], "mine.min_negatives=1 has no effect on"),
    ],
    ids=["id", "key", "n-tuple"],
)
def test_keys_are_named(
    changes: list[str], message: str, options: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_mine(*options, f"output_dir={tmp_path / 'out'}", *changes)


def test_a_model_without_finite_embeddings_is_named(options: list[str], tmp_path: Path) -> None:
    path = save_tiny_bert(tmp_path / "nan", seed=5)
    encoder = build_encoder(str(path))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(torch.nan)
    encoder.save(tmp_path / "saved")
    changes = [f"guide.model={tmp_path / 'saved'}", "mine.guide_margin=0"]
    with pytest.raises(ConfigError, match=r"guide.model=.* gives embeddings that are not finite"):
        run_mine(*options, *changes, f"output_dir={tmp_path / 'out'}")
    record = json.loads((tmp_path / "out" / "mine.json").read_text())
    assert len(record["weights of guide"]) == 32
