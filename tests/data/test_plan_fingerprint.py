"""The fingerprint of a plan: it differs, and names why, for whatever changes a resumed run."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate

from inbatch.data.plan.fingerprint import check_same_plan, digest, plan_fingerprint
from inbatch.data.plan.plan import SourceInfo, StreamInfo
from inbatch.data.plan.samplers import NoDuplicates, Proportional, Shuffled, Weighted
from inbatch.errors import ConfigError

ROWS = 20_000  # some blocks are not whole, and most rows are far from any sample


def source(name: str = "a", num_rows: int = ROWS, **arrays: np.ndarray) -> SourceInfo:
    """Two columns of hashes, keys, labels and scores; `arrays` takes the place of some."""
    generator = np.random.default_rng(0)
    given = {
        "hashes": generator.integers(0, 1 << 60, (2, num_rows), dtype=np.uint64),
        "keys": np.arange(num_rows, dtype=np.uint64),
        "labels": np.linspace(0, 1, num_rows, dtype=np.float32),
        "scores": np.linspace(0, 1, num_rows, dtype=np.float32)[None],
        **arrays,
    }
    return SourceInfo(name, num_rows, **{k: partial(np.asarray, v) for k, v in given.items()})  # type: ignore[arg-type]


def printed(**changes: Any) -> dict[str, Any]:
    """As it is read back from a checkpoint."""
    arguments = {
        "sources": [source()],
        "sampler": Proportional(Shuffled()),
        "global_batch_size": 16,
        "seed": 0,
        **changes,
    }
    return json.loads(json.dumps(plan_fingerprint(**arguments)))


def other_array(kind: str, row: int) -> SourceInfo:
    """The source with one number changed in its last place."""
    base = getattr(source(), kind)().copy()
    base[..., row] += base.dtype.type(1)
    return source(**{kind: base})


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("sources is ", {"sources": [source("other")]}),
        ("num_rows.a is 50 and was 20000 ", {"sources": [source(num_rows=50)]}),
        ("sampler.within.class is NoDuplicates ", {"sampler": Proportional(NoDuplicates())}),
        ("sampler.batch_sizes is ", {"sampler": Proportional(Shuffled(), batch_sizes={"a": 8})}),
        ("global_batch_size is 8 and was 16 ", {"global_batch_size": 8}),
        ("seed is 1 and was 0 ", {"seed": 1}),
        ("drop_last is False and was True ", {"drop_last": False}),
        (
            "streamed.a is ",
            {"sources": [SourceInfo("a", ROWS, stream=StreamInfo((ROWS,), 4))]},
        ),
    ],
)
def test_the_difference_is_named(words: str, change: dict[str, Any]) -> None:
    saved = printed()
    check_same_plan(saved, printed())
    if "streamed" in words:
        saved["content"] = printed(**change)["content"]
    with pytest.raises(ConfigError, match=f"^{words}.*: restore .*, or start a new run") as error:
        check_same_plan(saved, printed(**change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["hashes", "keys", "labels", "scores"])
@pytest.mark.parametrize("row", [0, 1, 12_345, ROWS - 1])
def test_every_row_counts(kind: str, row: int) -> None:
    saved, wanted = printed(), {"hashes": "texts"}.get(kind, kind)
    with pytest.raises(ConfigError, match=f"^the {wanted} of source 'a' are not what they were"):
        check_same_plan(saved, printed(sources=[other_array(kind, row)]))


def test_the_place_of_a_text_counts() -> None:
    hashes = source().hashes()  # type: ignore[misc]
    for moved in (hashes[:, ::-1], hashes[::-1], hashes.reshape(1, -1), hashes.T.reshape(2, -1)):
        assert digest(moved) != digest(hashes)
    assert digest(np.asfortranarray(hashes)) == digest(hashes)


def test_the_source_that_differs_is_named() -> None:
    saved = printed(sources=[source("a"), source("b")])
    changed = source("b", labels=np.zeros(ROWS, dtype=np.float32))
    with pytest.raises(ConfigError, match=r"^the labels of source 'b' are not"):
        check_same_plan(saved, printed(sources=[source("a"), changed]))


def test_configs_are_read_as_hydra_gives_them() -> None:
    sampler = instantiate(
        {
            "_target_": "inbatch.data.plan.samplers.Weighted",
            "weights": {"a": 1.0},
            "within": {"_target_": "inbatch.data.plan.samplers.Shuffled"},
        }
    )
    assert printed(sampler=sampler) == printed(sampler=Weighted({"a": 1.0}, Shuffled()))


def test_a_mapped_file_is_digested_fast(tmp_path: Path) -> None:
    """At a rate of 3 s for 200 million hashes, at the least."""
    hashes = np.arange(1 << 22, dtype=np.uint64).reshape(2, -1)
    np.save(tmp_path / "hashes.npy", hashes)
    mapped, start = np.load(tmp_path / "hashes.npy", mmap_mode="r"), time.process_time()
    assert digest(mapped) == digest(hashes)
    assert time.process_time() - start < 2 * 3 * (1 << 22) / 200e6 + 0.05
