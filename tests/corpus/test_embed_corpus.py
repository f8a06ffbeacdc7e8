"""Embeddings of a corpus: values, resuming at a shard, and the same bits at any number of ranks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.distributed import gloo, run
from helpers.tiny import tiny_texts
from inbatch.corpus import EmbedSettings, TextList, embed_corpus, open_embeddings
from inbatch.corpus.embed import shard_size
from inbatch.corpus.store import StoredEmbeddings
from inbatch.encoder import Encoder, build_encoder
from inbatch.errors import ConfigError
from inbatch.gather import barrier
from inbatch.guide import Process

SMALL = EmbedSettings(chunk_tokens=256, shard_texts=32)
ALONE = Process(device=torch.device("cpu"))
# Ragged, some of them twice.
TEXTS = [*tiny_texts(150, min_words=1, max_words=30), *tiny_texts(50, min_words=1, max_words=30)]


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> Encoder:
    return build_encoder(str(tiny_bert), prompts={"query": "red phone "})


def embed(
    encoder: Encoder, folder: Path, process: Process = ALONE, **options: object
) -> StoredEmbeddings:
    changes = {"settings": SMALL, **options}
    return embed_corpus(encoder, TextList(TEXTS), folder, process=process, **changes)  # type: ignore[arg-type]


def test_rows_are_the_embeddings_of_the_texts(encoder: Encoder, tmp_path: Path) -> None:
    stored = embed(encoder, tmp_path, prompt="red phone ")
    wanted = encoder.encode(TEXTS, role="query").numpy()
    rows = stored.rows(0, len(stored))
    np.testing.assert_allclose(rows, wanted, atol=1e-6)
    assert (len(stored), stored.dimension, stored.dtype) == (200, 32, "float32")
    assert np.array_equal(stored.rows(30, 100), rows[30:100])  # over three parts
    assert np.array_equal(stored.rows(200, 200), rows[:0])
    places = np.array([199, 0, 31, 32, 32, 64])
    assert np.array_equal(stored.take(places), rows[places])
    assert stored.ids(198, 200) == ["198", "199"]
    with pytest.raises(IndexError, match="0 to 201 are not within the 200"):
        stored.rows(0, 201)
    with pytest.raises(IndexError, match="not within"):
        stored.take([-1])


def test_equal_texts_are_embedded_once(encoder: Encoder, tmp_path: Path) -> None:
    seen: list[int] = []
    hook = encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].num_texts))
    texts = TextList(["red phone", "blue case", "red phone"] * 20)
    stored = embed_corpus(encoder, texts, tmp_path, process=ALONE, settings=SMALL)
    hook.remove()
    assert seen == [2, 2]
    assert np.array_equal(stored.rows(0, 3), stored.rows(57, 60))


def test_ids_are_kept(encoder: Encoder, tmp_path: Path) -> None:
    names = [f"offer-{i}ß" for i in range(200)]
    stored = embed(encoder, tmp_path, ids=TextList(names))
    assert stored.ids(20, 70) == names[20:70]
    with pytest.raises(ConfigError, match="texts holds 200 texts and 3 ids"):
        embed(encoder, tmp_path / "few", ids=TextList(names[:3]))


def test_shards_follow_from_the_number_of_texts() -> None:
    sizes = {n: shard_size(n) for n in (1, 10_000, 1_000_000, 10**8)}
    assert sizes == {1: 2048, 10_000: 2048, 1_000_000: 4096, 10**8: 65536}


def _killed(encoder: Encoder, folder: Path) -> None:
    """Embed, and die by SIGKILL where the third shard would be written."""
    torch.set_num_threads(1)
    from inbatch.corpus import shards

    def kill(folder: Path, shard: int, *rest: object) -> None:
        if shard == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        write(folder, shard, *rest)  # type: ignore[arg-type]

    write: Callable[..., None] = shards.write_part
    shards.write_part = kill  # type: ignore[assignment]
    embed(encoder, folder)


def test_a_killed_run_goes_on_with_the_same_bits(encoder: Encoder, tmp_path: Path) -> None:
    whole = embed(encoder, tmp_path / "whole").rows(0, 200)
    process = get_context("fork").Process(target=_killed, args=(encoder, tmp_path / "killed"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(ConfigError, match=r"killed lacks 5 of 7 parts: run the command .* again"):
        open_embeddings(tmp_path / "killed")
    embedded: list[int] = []
    hook = encoder.register_forward_pre_hook(lambda _, args: embedded.append(args[0].num_texts))
    resumed = embed(encoder, tmp_path / "killed")
    again = sum(embedded)
    embed(encoder, tmp_path / "killed")
    hook.remove()
    assert again == sum(embedded) == 200 - 2 * 32  # nothing is embedded again
    assert np.array_equal(resumed.rows(0, 200), whole)


def _embed_on_ranks(rank: int, world_size: int, encoder: Encoder, folder: Path) -> np.ndarray:
    if world_size > 1:
        gloo()
    process = replace(ALONE, rank=rank, world_size=world_size, barrier=barrier)
    settings = replace(SMALL, dtype="int8", calibration_texts=40)
    stored = embed(encoder, folder, process if world_size > 1 else ALONE)
    embed(
        encoder,
        folder.with_suffix(".int8"),
        process if world_size > 1 else ALONE,
        settings=settings,
    )
    return np.array(stored.rows(0, 200))


def test_ranks_write_the_same_bits_as_one_process(encoder: Encoder, tmp_path: Path) -> None:
    alone = _embed_on_ranks(0, 1, encoder, tmp_path / "one")
    for world_size in (2, 3):
        for rows in run(_embed_on_ranks, world_size, encoder, tmp_path / str(world_size)):
            assert np.array_equal(rows, alone)
        for path in tmp_path.glob("one*/*.npy"):
            other = tmp_path / path.parent.name.replace("one", str(world_size)) / path.name
            assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "blue "}, r"of texts behind the prompt '', not 'blue '"),
        ({"settings": replace(SMALL, dtype="float16")}, "as float32 of 32 .*, not float16 of 32"),
        ({"settings": replace(SMALL, normalize=True)}, "as float32 .*, not float32 .* normalized"),
        ({"settings": replace(SMALL, compute_dtype=torch.bfloat16)}, "computed in float32, not bf"),
        ({"settings": replace(SMALL, chunk_tokens=128)}, "made with chunk_tokens=256, not 128"),
        ({"settings": replace(SMALL, shard_texts=64)}, "in parts of 32 texts, not 64"),
        ({"ids": TextList(list(map(str, range(200))))}, "of texts with other ids"),
    ],
    ids=["prompt", "dtype", "normalize", "precision", "chunks", "shards", "ids"],
)
def test_a_folder_of_something_else_is_refused(
    encoder: Encoder,
    tmp_path_factory: pytest.TempPathFactory,
    change: dict[str, object],
    message: str,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "held"
    embed(encoder, folder)
    with pytest.raises(ConfigError, match=f"holds embeddings {message}.*: name another folder"):
        embed(encoder, folder, **change)


def test_a_folder_of_another_model_or_other_texts_is_refused(
    encoder: Encoder, tiny_bert: Path, tmp_path: Path
) -> None:
    embed(encoder, tmp_path)
    other = build_encoder(str(tiny_bert))
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1
    with pytest.raises(ConfigError, match=r"embeddings of another model \(.*tiny_bert0?\)"):
        embed(other, tmp_path)
    fewer = partial(embed_corpus, encoder, process=ALONE, settings=SMALL)
    with pytest.raises(ConfigError, match=r"of other texts \(200, now 199\)"):
        fewer(TextList(TEXTS[:-1]), tmp_path)
    with pytest.raises(ConfigError, match=r"of other texts \(200, now 200\)"):
        fewer(TextList([*TEXTS[:-1], "red"]), tmp_path)
    with pytest.raises(ConfigError, match="texts holds no texts"):
        fewer(TextList([]), tmp_path)
    with pytest.raises(ConfigError, match=r"nothing holds no embeddings: make some"):
        open_embeddings(tmp_path / "nothing")
    (tmp_path / "part-00001.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ConfigError, match=r"part-00001.npy is damaged: delete it"):
        open_embeddings(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match=r"manifest.json is damaged"):
        open_embeddings(tmp_path)
