"""A run never writes over another's results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from helpers import distributed
from helpers.runs import compose_run
from inbatch.config.check import RunConfig, check_config
from inbatch.errors import ConfigError
from inbatch.folder.identity import claim, write_config
from inbatch.folder.paths import RunFolder

RUN = ("encoder=tiny", "data.train=a.csv")


def _run(folder: Path, *overrides: str) -> RunConfig:
    return check_config(compose_run(*RUN, f"output_dir={folder}", *overrides))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The output directory of a run that has left a checkpoint."""
    write_config(RunFolder(tmp_path), asdict(_run(tmp_path)))
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        "trainer.max_steps=9",
        "schedule=cosine",
        "strategy=fsdp",
        "resume=auto",
        "name=x",
        "optimizer.fused=false",
        "loss.implementation=triton",
        "+encoder.attention=eager",
    ],
)
def test_the_same_run_may_go_on(folder: Path, change: str) -> None:
    with claim(RunFolder(folder), asdict(_run(folder, change))):
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=7", "seed was 42 and is 7"),
        ("data.train=b.csv", "data.train.train.path was 'a.csv' and is 'b.csv'"),
        ("loss.temperature=0.5", "loss.temperature was 0.05 and is 0.5"),
        ("loss=cosent", "loss._target_ was "),
        ("sampler=batch", "sampler._target_ was "),
        ("optimizer.lr=1e-3", "optimizer.lr was 5e-05 and is 0.001"),
        (
            "+learning_rate_mapping.head=1e-3",
            "learning_rate_mapping.head was null and is 0.001",
        ),
        ("+encoder.pooling=cls", "encoder.pooling was null and is 'cls'"),
        ("guide.max_length=8", "guide.max_length was null and is 8"),
        ("encoder.config.hidden_size=64", "encoder.config.hidden_size was 128 and is 64"),
        ("resume=never", "holds a run, which resume=never would overwrite"),
    ],
)
def test_another_run_is_refused(folder: Path, change: str, said: str) -> None:
    before = (folder / "config.yaml").read_bytes()
    with (
        pytest.raises(ConfigError, match="set another output_dir, or") as error,
        claim(RunFolder(folder), asdict(_run(folder, change))),
    ):
        pass
    assert said in str(error.value)
    assert (folder / "config.yaml").read_bytes() == before


def _write_and_read(rank: int, world_size: int, folder: Path) -> int:
    """Rank 0 writes the configuration again and again; what the other reads meanwhile is whole."""
    run, done = _run(folder, "resume=auto"), folder / "done"
    times = 0
    if rank == 0:
        for _ in range(60):
            write_config(RunFolder(folder), asdict(run))
        done.touch()
        return 0
    while not done.exists():
        with claim(RunFolder(folder), asdict(run)):
            pass
        times += 1
    return times


def test_a_start_beside_another_reads_a_whole_configuration(folder: Path) -> None:
    assert distributed.run(_write_and_read, 2, folder)[1] > 10


def _prepare(rank: int, world_size: int, folder: Path) -> None:
    write_config(RunFolder(folder / str(rank)), asdict(_run(folder)))


def test_rank_0_alone_writes_the_configuration(tmp_path: Path) -> None:
    distributed.run(_prepare, 2, tmp_path)
    assert [path.name for path in sorted((tmp_path / "0").iterdir())] == [
        "checkpoints",
        "config.yaml",
    ]
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["checkpoints"]


def test_a_folder_in_which_nothing_was_trained_is_free(tmp_path: Path) -> None:
    with claim(RunFolder(tmp_path), asdict(_run(tmp_path))):
        pass
    write_config(RunFolder(tmp_path), asdict(_run(tmp_path)))
    with claim(RunFolder(tmp_path), asdict(_run(tmp_path, "seed=7", "resume=never"))):
        pass
