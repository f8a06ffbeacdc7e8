"""A stored guide gives what a live one gives, from disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier, Timer
from typing import Any

import numpy as np
import pytest
import torch

from helpers.guides import ALONE, Counter, distinct_texts, make_guide, make_source
from inbatch.batch.batch import Batch
from inbatch.data.collate import Collator
from inbatch.data.hashing import hash_texts
from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.guide import Guide, LiveGuide, Process, StoredGuide, visible
from inbatch.guide.fill import FillSettings
from inbatch.guide.portions import Portion

CPU = torch.device("cpu")
PROMPTS = {"query": "red phone ", "document": "blue case ", "clustering": "green "}


def _stored(encoder: Encoder, source: Source, folder: Path, **options: Any) -> StoredGuide:
    shard_s = options.pop("shard_s", 600.0)
    sizes = FillSettings(chunk_tokens=256, window_texts=32, shard_texts=32, shard_s=shard_s)
    return StoredGuide(encoder, [source], store_dir=folder, fill=sizes, **options)


def _batch(guide: Guide, source: Source, rows: np.ndarray) -> Batch:
    collator = Collator(
        tokenizer=make_guide_tokenizer(guide),
        guide_tokenizer=guide.tokenizer,
        guide_prompts=guide.prompts,
    )
    return collator(source, rows, step=0, num_global_rows=source.num_rows)


def make_guide_tokenizer(guide: Guide) -> Any:
    from helpers.tiny import tiny_tokenizer
    from inbatch.encoder.tokenize import TextTokenizer

    return guide.tokenizer or TextTokenizer(hf=tiny_tokenizer(), max_length=64)


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-6), ("float16", 1.5e-3)])
@pytest.mark.parametrize("prompts", [{}, PROMPTS], ids=["no prompts", "prompts"])
def test_embeddings_equal_the_live_guides(
    tiny_bert: Path, tmp_path: Path, dtype: str, limit: float, prompts: dict[str, str]
) -> None:
    source, rows = make_source(), np.array([3, 17, 5, 30])
    live = LiveGuide(make_guide(tiny_bert, prompts=prompts))
    kept = _stored(make_guide(tiny_bert, prompts=prompts), source, tmp_path, store_dtype=dtype)
    kept.start(ALONE)
    batch = _batch(kept, source, rows)
    assert batch.guide_chunks == ()
    found, wanted = kept.embed(batch, CPU), live.embed(_batch(live, source, rows), CPU)
    assert found.dtype == getattr(torch, dtype)
    assert found.shape == (12, 32)
    torch.testing.assert_close(found.float(), wanted, atol=limit, rtol=0)
    if dtype == "float16":
        assert not torch.equal(found, wanted)
    empty = kept.embed(_batch(kept, source, rows[:0]), CPU)
    assert empty.shape == live.embed(_batch(live, source, rows[:0]), CPU).shape == (0, 32)


def test_a_second_run_computes_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    source, lines = make_source(), []
    process = Process(device=CPU, say=lines.append)
    num_texts = len(distinct_texts(source))
    for expected in (num_texts, 0):
        encoder = make_guide(tiny_bert)
        counter = Counter(encoder)
        guide = _stored(encoder, source, tmp_path)
        guide.start(process)
        guide.start(process)  # a second fit of the same module
        assert counter.num_texts == expected
    assert [line.partition(" in ")[0] for line in lines] == [
        f"guide  {num_texts} texts embedded",
        "guide  0 texts embedded",
    ]
    assert lines[-1].endswith(f"{num_texts} in {tmp_path}")


@pytest.mark.parametrize(
    "options",
    [{"max_length": 6}, {"prompts": {"query": "red "}}, {"pooling": "cls"}],
    ids=["max length", "prompt", "pooling"],
)
def test_another_guide_is_computed_anew(
    tiny_bert: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    source = make_source()
    _stored(make_guide(tiny_bert), source, tmp_path).start(ALONE)
    encoder = make_guide(tiny_bert, **options)
    counter = Counter(encoder)
    guide = _stored(encoder, source, tmp_path)
    guide.start(ALONE)
    assert counter.num_texts >= source.num_rows
    live, rows = LiveGuide(make_guide(tiny_bert, **options)), np.arange(8)
    wanted = live.embed(_batch(live, source, rows), CPU)
    found = guide.embed(_batch(guide, source, rows), CPU).float()
    torch.testing.assert_close(found, wanted, atol=1.5e-3, rtol=0)


def test_a_changed_text_is_noticed(tiny_bert: Path, tmp_path: Path) -> None:
    source = Source.from_columns(
        "rows", {"query": ["red phone", "usb"], "positive": ["case", "mouse"]}
    )
    guide = _stored(make_guide(tiny_bert), source, tmp_path)
    guide.start(ALONE)
    batch = _batch(guide, source, np.arange(2))
    changed = hash_texts(["red phone", "usb", "case!", "mouse"])
    with pytest.raises(
        ConfigError, match=r"lacks .* 1 texts of source 'rows'.*inbatch embed-guide"
    ):
        guide.embed(batch._replace(text_ids=changed.reshape(2, 2)), CPU)
    guide.embed(batch, CPU)


def test_a_store_that_other_nodes_do_not_see_is_refused(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visible, "_VISIBLE_S", 0.0)
    guide = _stored(make_guide(tiny_bert), make_source(), tmp_path, shard_s=0.0)
    with pytest.raises(ConfigError, match="every node sees"):
        guide.start(Process(device=CPU, rank=0, world_size=2))


def test_a_portion_that_others_have_stored_is_awaited_too(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank finds its own part of a portion before the parts of the others are visible."""
    monkeypatch.setattr(visible, "_VISIBLE_S", 0.0)
    source = make_source()
    first, second = (Portion(a, partial(_rows, a, a + 20)) for a in (0, 20))
    of_two = Process(device=CPU, rank=0, world_size=2)
    for portion, process in ((first, ALONE), (second, of_two), (None, of_two)):
        guide = _stored(make_guide(tiny_bert), source, tmp_path)
        guide.expect([first, second] if portion is None else [portion])
        if process is ALONE:
            guide.start(process)
            continue
        with pytest.raises(ConfigError, match="every node sees"):
            guide.start(process)


def _rows(start: int, stop: int) -> dict[str, np.ndarray]:
    return {"rows": np.arange(start, stop)}


def _without_memory(encoder: Encoder, at: str) -> None:
    """Memory runs out as the encoder is moved to the device, or in each forward."""

    def run_out(*args: object) -> Any:
        if at == "forward" or args == (CPU,):  # not "cpu", as it is moved back
            raise torch.OutOfMemoryError("CUDA out of memory")

    if at == "forward":
        encoder.register_forward_pre_hook(run_out)
    else:
        encoder.to = run_out  # type: ignore[method-assign]


@pytest.mark.parametrize("at", ["forward", "move"])
def test_a_guide_without_memory_ends_all_ranks_with_one_sentence(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr("inbatch.guide.rounds.ROUND_S", 0.0)
    encoders = [make_guide(tiny_bert) for _ in range(2)]
    _without_memory(encoders[1], at)
    meet, sent = Barrier(2, timeout=30), [0, 0]

    def most(rank: int, value: int) -> int:
        sent[rank] = value
        meet.wait()
        largest = max(sent)
        meet.wait()
        return largest

    def start(rank: int) -> None:
        process = Process(
            device=CPU, rank=rank, world_size=2, barrier=meet.wait, most=partial(most, rank)
        )
        message = r"guide\.model does not fit in .*: embed its texts ahead .* `inbatch embed-guide`"
        with pytest.raises(ConfigError, match=message):
            _stored(encoders[rank], make_source(), tmp_path).start(process)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(start, range(2))) == [None, None]


def test_a_fast_rank_waits_in_short_rounds(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the slow one takes, no collective waits for longer than a round and a chunk."""
    monkeypatch.setattr("inbatch.guide.rounds.ROUND_S", 0.0)
    source, states = make_source(), list[tuple[int, ...]]()
    fast, slow = (_stored(make_guide(tiny_bert), source, tmp_path) for _ in range(2))
    meet, sent = Barrier(2, timeout=30), [0, 0]

    def most(rank: int, value: int) -> int:
        sent[rank] = value
        if meet.wait() == 0:
            states.append(tuple(sent))
        meet.wait()
        return max(states[-1])

    with_all, with_none = (
        Process(
            device=CPU, rank=rank, world_size=ranks, barrier=meet.wait, most=partial(most, rank)
        )
        for rank, ranks in ((0, 1), (1, 2))
    )
    fast.expect([Portion(rows=dict)])  # of no rows
    late = Timer(0.0, slow.start, [with_all])
    late.start()
    fast.start(with_none)
    late.join()
    assert len(states) > 5
    assert states == [*[(1, 0)] * (len(states) - 1), (0, 0)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("float16", 3e-2)])
def test_on_a_gpu(tiny_bert: Path, tmp_path: Path, dtype: str, limit: float) -> None:
    source, device = make_source(), torch.device("cuda")
    live = LiveGuide(make_guide(tiny_bert, normalize=True))
    kept = _stored(make_guide(tiny_bert, normalize=True), source, tmp_path, store_dtype=dtype)
    kept.start(Process(device=device))
    rows = np.arange(source.num_rows)
    wanted = live.embed(_batch(live, source, rows), CPU)
    for _ in range(3):  # page-locked memory is used again
        found = kept.embed(_batch(kept, source, rows), device)
        assert found.is_cuda
        torch.testing.assert_close(found.cpu().float(), wanted, atol=limit, rtol=0)


def test_a_chunk_must_hold_a_text(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"guide\.chunk_tokens=63 .* 64 tokens"):
        StoredGuide(
            make_guide(tiny_bert),
            [make_source()],
            store_dir=tmp_path,
            fill=FillSettings(chunk_tokens=63),
        )
