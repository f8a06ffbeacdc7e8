"""Checkpoints that no run may resume from: of another plan, or no checkpoint at all. One sentence each."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from multiprocessing import current_process
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import TINY, compose_run, metrics, run_train
from helpers.tiny import tiny_texts
from inbatch.config.check import check_config
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.folder.paths import RunFolder
from inbatch.run.build import build_parts, make_data
from inbatch.run.parts import OwnObjects
from inbatch.run.resume import Saved, check_strategy_of, find_checkpoint, read_checkpoint
from inbatch.strategies import FSDP, Auto, DeepSpeed, Strategy, World

NUM_ROWS = 40


def _write(
    path: Path, *, changed_text: int | None = None, changed_label: int | None = None
) -> None:
    """Pairs with labels, of which one may be another than usual."""
    rows = [
        {"query": query, "positive": positive, "label": number / NUM_ROWS}
        for number, (query, positive) in enumerate(
            zip(tiny_texts(NUM_ROWS, seed=1), tiny_texts(NUM_ROWS, seed=2))
        )
    ]
    if changed_text is not None:
        rows[changed_text]["positive"] = "an unseen zebra crossing words quite new"
    if changed_label is not None:
        rows[changed_label]["label"] = 0.99
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _options(data: Path, folder: Path) -> list[str]:
    return [
        f"data.train.pairs={data}",
        f"data.cache_dir={data.parent / 'cache'}",
        "global_batch_size=4",
        "loss=cosent",
        "accumulate=2",
        f"output_dir={folder / 'run'}",
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two optimizer steps that has ended, and its data."""
    folder = tmp_path_factory.mktemp("finished")
    _write(folder / "pairs.jsonl")
    run_train(*_options(folder / "pairs.jsonl", folder), "trainer.max_steps=2")
    return folder


@pytest.fixture
def data(finished: Path) -> Path:
    """The rows of that run."""
    _write(finished / "pairs.jsonl")
    return finished / "pairs.jsonl"


@pytest.fixture
def options(tmp_path: Path, finished: Path, data: Path) -> list[str]:
    """A copy of that run, and what it was."""
    shutil.copytree(finished / "run", tmp_path / "run", symlinks=True)
    return _options(data, tmp_path)


def _refused(options: list[str], *changes: str) -> str:
    with pytest.raises(ConfigError) as error:
        run_train(*options, "trainer.max_steps=4", *changes)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"changed_text": 17}, "the texts of source 'pairs' are not what they were"),
        ({"changed_label": 31}, "the labels of source 'pairs' are not what they were"),
    ],
)
def test_changed_data_are_refused_before_weights_are_loaded(
    tmp_path: Path, data: Path, options: list[str], change: dict[str, int], words: str
) -> None:
    """The learned tokenizer has another vocabulary too, whose weights would not fit."""
    _write(data, **change)
    assert _refused(options).startswith(words)
    _write(data)
    run_train(*options, "trainer.max_steps=4")
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2, 3, 4]


def test_another_accumulation_is_refused(options: list[str]) -> None:
    assert _refused(options, "accumulate=1").startswith("accumulate is 1 and was 2 when")


def _not_checkpoints(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    (folder / "rows.csv").write_text("query,positive\na,b\n")
    (folder / "empty.ckpt").touch()
    np.savez(folder / "arrays.npz", a=np.zeros(3))
    torch.save([torch.zeros(3)], folder / "list.pt")
    torch.save({"weight": torch.zeros(3)}, folder / "weights.pt")
    torch.save({"pytorch-lightning_version": "2.0.0", "state_dict": {}}, folder / "foreign.ckpt")
    (folder / "folder").mkdir()
    return {path.name: path for path in folder.iterdir()}


def test_other_files_are_no_checkpoints(tmp_path: Path, options: list[str]) -> None:
    paths = _not_checkpoints(tmp_path / "files")
    cut = tmp_path / "files" / "cut.ckpt"
    cut.write_bytes((tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()[:5000])
    for name, path in {**paths, "cut.ckpt": cut}.items():
        fresh = [*options, f"output_dir={tmp_path / 'fresh'}", f"resume={path}"]
        message = _refused(fresh)
        if name == "foreign.ckpt":
            assert message.startswith(
                "resume names a checkpoint that says nothing about its batches"
            )
        elif name in ("arrays.npz", "list.pt", "weights.pt"):
            expected = f"resume={str(path)!r} names {path}, which is not a checkpoint of a run: "
            assert message.startswith(expected), name
        else:
            broken = {"empty.ckpt": "is empty", "folder": "is an empty folder"}
            problem = broken.get(name, "is cut off, or no checkpoint")
            assert message.startswith(f"resume={str(path)!r} {problem}: set "), name
    shutil.copy(cut, tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert "holds a run without a whole checkpoint (step-00000002.ckpt is cut" in _refused(options)


def test_a_folder_of_foreign_objects_is_left_to_its_strategy(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    torch.save({"scaler": World("cpu", 1, 1)}, tmp_path / "checkpoint" / "mp_model_states.pt")
    assert read_checkpoint(tmp_path, resume="auto").entries is None


def _check(overrides: list[str]) -> None:
    """As an entry point may, before it writes anything."""
    sizes = ("gradcache.chunk_tokens=256", "gradcache.keep_gib=null", "data.loader.num_workers=0")
    config = check_config(compose_run(*TINY, *sizes, *overrides))
    folder, world = RunFolder(Path(config.output_dir)), World("cpu", 1, 1)
    own = OwnObjects(encoder=build_encoder(str(folder.model)))
    data = make_data(config, world, build_parts(config, world, own))
    saved = find_checkpoint(folder, config.resume, asdict(config))
    assert saved is not None
    assert saved.entries is not None
    data.check_checkpoint(saved.entries)


def test_the_check_needs_no_trainer(data: Path, options: list[str]) -> None:
    _check(options)
    with pytest.raises(ConfigError, match=r"^accumulate is 1 and was 2"):
        _check([*options, "accumulate=1"])
    _write(data, changed_label=3)
    with pytest.raises(ConfigError, match=r"^the labels of source 'pairs'"):
        _check(options)


def _train(rank: int, world_size: int, overrides: list[str]) -> None:
    quiet()
    current_process()._config["daemon"] = False  # type: ignore[attr-defined] # workers are children
    run_train(*overrides)


def test_a_sharded_run_goes_on_with_workers_and_is_checked(tmp_path: Path, data: Path) -> None:
    """FSDP restores after its set-up, in which workers must not have begun to read."""
    sharded = [*_options(data, tmp_path), "strategy=fsdp", "data.loader.num_workers=1"]
    whole, parts = (f"output_dir={tmp_path / name}" for name in ("whole", "parts"))
    run(_train, 2, [*sharded, whole, "trainer.max_steps=2"])
    for stop in (1, 2):
        run(_train, 2, [*sharded, parts, f"trainer.max_steps={stop}"])
    one, other = (
        [row["train/loss"] for row in metrics(tmp_path / name)] for name in ("whole", "parts")
    )
    assert one == pytest.approx(other, abs=1e-5)
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    entries = read_checkpoint(last, resume="auto").entries
    assert entries is not None
    saved = entries["BatchModule"]
    assert saved["fingerprint"]["accumulate"] == 2
    assert saved["position"] == {"epoch": 0, "step": 4, "plan": 0, "plan_step": 4}


@pytest.mark.parametrize(
    ("written", "strategy", "ranks", "said"),
    [
        (
            (2, 2),
            Auto(),
            2,
            "DeepSpeed stage 2 on 2 ranks with Auto on 2 ranks: set strategy=deepspeed_stage_2",
        ),
        (
            (2, 2),
            DeepSpeed(stage=3),
            2,
            "stage 2 on 2 ranks with DeepSpeed stage 3 on 2 ranks: set ",
        ),
        (
            (2, 2),
            DeepSpeed(stage=2),
            4,
            "on 4 ranks: set strategy=deepspeed_stage_2 trainer.devices=2, ",
        ),
        (
            None,
            DeepSpeed(stage=1),
            1,
            "a file without shards, with DeepSpeed stage 1 on 1 rank: set ",
        ),
        ((2, 2), DeepSpeed(stage=2), 2, None),
        (None, FSDP(), 2, None),
    ],
)
def test_a_checkpoint_of_another_strategy(
    tmp_path: Path,
    written: tuple[int, int] | None,
    strategy: Strategy,
    ranks: int,
    said: str | None,
) -> None:
    path, record = tmp_path / "step-00000002.ckpt", {}
    if written is None:
        path.touch()
    else:
        path.mkdir()
        record = {"settings": {"strategy": {"stage": written[0]}}, "world_size": written[1]}
    node = {"stage": strategy.stage} if isinstance(strategy, DeepSpeed) else {}
    saved, world = Saved(path, None, record), World("cpu", ranks, 1)
    if said is None:
        check_strategy_of(saved, strategy, node, world)
        return
    with pytest.raises(ConfigError) as error:
        check_strategy_of(saved, strategy, node, world)
    assert said in str(error.value)
