"""The entry point fills the store that a training run with the same configuration looks up in."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import TINY, compose_run, metrics, run_train, write_triplets
from inbatch.cli.embed_guide import embed_guide
from inbatch.config.check import check_config
from inbatch.data.sources.load import load_sources
from inbatch.errors import ConfigError
from inbatch.guide import LiveGuide
from inbatch.run.build import make_guide, make_losses


def _options(tmp_path: Path, guide: Path) -> list[str]:
    data = tmp_path / "triplets.jsonl"
    if not data.exists():
        write_triplets(data, 40)
    return [
        f"data.train.triplets={data}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "global_batch_size=8",
        "loss=gist",
        "guide=minilm",
        f"guide.model={guide}",
        f"guide.store_dir={tmp_path / 'store'}",
        f"output_dir={tmp_path / 'run'}",
    ]


def test_training_finds_what_was_embedded_ahead(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(tmp_path, tiny_bert)
    assert embed_guide(check_config(compose_run(*TINY, *options))) == tmp_path / "store"
    assert "guide  120 texts embedded" in capsys.readouterr().out
    stored = metrics(run_train(*options))
    out = capsys.readouterr().out
    assert "guide  0 texts embedded" in out
    assert "guide.embeddings: stored in" in out
    live = metrics(run_train(*options, "guide.mode=live", f"output_dir={tmp_path / 'live'}"))
    assert "guide.embeddings: computed for every batch" in capsys.readouterr().out
    losses = [[row["train/loss"] for row in rows if "train/loss" in row] for rows in (stored, live)]
    assert len(losses[0]) == 5
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def _embed(rank: int, world_size: int, options: list[str]) -> None:
    quiet()
    embed_guide(check_config(compose_run(*TINY, *options)))


def test_ranks_of_a_launcher_divide_the_texts(tiny_bert: Path, tmp_path: Path) -> None:
    run(_embed, 2, _options(tmp_path, tiny_bert))
    assert len(list(tmp_path.glob("store/*/prompt-*/shard-*"))) == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss=multiple_negatives_ranking", "has no loss that takes a guide: set loss=cached_gist"),
        ("loss.self_guided=true", "has no loss that takes a guide: .* without loss.self_guided"),
        ("guide.mode=live", "guide.mode='live' does not use a store: set guide.mode=stored"),
        ("guide=none", "needs a guide: set guide.model=NAME_OR_PATH.* or loss.self_guided=true"),
        ("guide.mode=cached", "guide.mode='cached' .* one of stored, live"),
        (
            "guide.store_dtype=bfloat16",
            "guide.store_dtype='bfloat16' is not one of float16, float32",
        ),
        ("guide.chunk_tokens=10", "guide.chunk_tokens=10 cannot hold"),
    ],
)
def test_mistakes_are_named(tiny_bert: Path, tmp_path: Path, override: str, message: str) -> None:
    options = [
        o
        for o in _options(tmp_path, tiny_bert)
        if override != "guide=none" or not o.startswith("guide")
    ]
    with pytest.raises(ConfigError, match=message):
        embed_guide(check_config(compose_run(*TINY, *options, override)))


def test_a_guide_is_loaded_for_losses_that_need_it(tiny_bert: Path, tmp_path: Path) -> None:
    options = _options(tmp_path, tiny_bert)
    no_guide = ["loss=multiple_negatives_ranking", "guide.model=null"]
    for overrides, kind in ((no_guide, type(None)), (["guide.mode=live"], LiveGuide)):
        config = check_config(compose_run(*TINY, *options, *overrides))
        sources = load_sources(config.data.train)
        sources, losses = make_losses(config.loss, sources, guided=True, mixed=False)
        assert type(make_guide(config.guide, sources, losses, accelerator="cpu")) is kind
