"""Which folders `inbatch embed` goes on with, what it makes again there, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.tiny import tiny_texts
from inbatch.cli.overrides import complete_overrides
from inbatch.cluster.lease import hold
from inbatch.config.check_embed import check_embed
from inbatch.config.composition import compose
from inbatch.config.schema import CONF
from inbatch.corpus.store import read_manifest
from inbatch.errors import ConfigError
from inbatch.run.embed import embed

TEXTS = tiny_texts(40, min_words=1, max_words=20)


@pytest.fixture(scope="module")
def line(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("embed")
    rows = {"id": [f"offer-{n}" for n in range(40)], "title": TEXTS}
    pq.write_table(pa.table(rows), folder / "offers.parquet")
    return [
        f"encoder.model={tiny_bert}",
        f"data.texts={folder / 'offers.parquet'}",
        f"data.cache_dir={folder / 'cache'}",
        "shard_texts=16",
        "trainer.accelerator=cpu",
        "precision=fp32",
    ]


def command(*overrides: str) -> Path:
    return embed(check_embed(compose("embed", complete_overrides(overrides, CONF))))


@pytest.fixture(scope="module")
def stored(line: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return command(*line, f"output_dir={tmp_path_factory.mktemp('stored') / 'out'}")


@pytest.mark.parametrize("name", ["part-00000.npy", "ids-00001.arrow", "ranges.npy"])
def test_parts_without_a_manifest_are_refused(
    name: str, stored: Path, line: list[str], tmp_path: Path
) -> None:
    shutil.copyfile(stored / "part-00000.npy", tmp_path / name)
    with pytest.raises(ConfigError, match=f"holds {name} and no manifest.json"):
        command(*line, f"output_dir={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["part-00001.npy", "ids-00002.arrow"])
@pytest.mark.parametrize("of", ["cut", "other"])
def test_a_damaged_part_is_named_and_made_again(
    of: str, name: str, stored: Path, line: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(stored, folder)
    whole = (folder / name).read_bytes()
    other = (folder / name.replace("00001", "00002").replace("ids-00002", "ids-00000")).read_bytes()
    (folder / name).write_bytes(whole[:-200] if of == "cut" else other)
    with pytest.raises(ConfigError, match=f"{name} is damaged: delete it"):
        command(*line, f"output_dir={folder}")
    (folder / name).unlink()
    command(*line, f"output_dir={folder}")
    assert (folder / name).read_bytes() == whole


@pytest.mark.parametrize(
    ("kind", "names"),
    [("npy", ["embeddings.npy", "ids.npy"]), ("parquet", ["embeddings.parquet"])],
    ids=["npy", "parquet"],
)
def test_one_file_that_is_gone_or_cut_is_made_again(
    kind: str, names: list[str], line: list[str], tmp_path: Path
) -> None:
    line = [*line, f"output_dir={tmp_path}", f"format={kind}"]
    command(*line)
    for name in names:
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-100])
        with pytest.raises(ConfigError, match=f"{name} is damaged: delete it"):
            command(*line)
        (tmp_path / name).unlink()
        command(*line)
        assert (tmp_path / name).read_bytes() == whole
    assert not list(tmp_path.glob("part-*"))


def test_a_folder_in_use_is_left_alone(stored: Path, line: list[str]) -> None:
    unfinished = stored / ".part.x.new"
    unfinished.touch()
    line = [*line, f"output_dir={stored}"]
    with (
        hold(stored / "run.lease"),
        pytest.raises(ConfigError, match=r"output_dir=.* is in use by another run"),
    ):
        command(*line)
    with pytest.raises(ConfigError, match="holds embeddings as float32"):
        command(*line, "dtype=float16")
    assert unfinished.exists()
    command(*line)
    assert not unfinished.exists()


def test_a_forward_takes_the_longest_text(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = command(*line, "chunk_tokens=2", "encoder.max_length=24", f"output_dir={tmp_path}")
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.made_from["chunk_tokens"] == 24
    assert "24 tokens" in capsys.readouterr().out
    assert np.load(folder / "part-00002.npy").shape == (8, 32)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["ranges=/nope"], "ranges='/nope' has no effect on dtype=float32: set dtype=int8 or"),
        (["calibration_texts=5", "dtype=binary"], "calibration_texts=5 has no effect on dtype=bin"),
        (["calibration_texts=5", "dtype=int8", "ranges=x"], "calibration_texts=5 has no effect"),
    ],
    ids=["ranges", "calibration", "both"],
)
def test_ranges_without_effect_are_refused(more: list[str], message: str, line: list[str]) -> None:
    with pytest.raises(ConfigError, match=message):
        command(*line, *more)
