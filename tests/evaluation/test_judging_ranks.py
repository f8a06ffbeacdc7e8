"""Two ranks give the numbers of one process, bit for bit, and share the work."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.distributed import gloo, run
from helpers.launching import ROOT
from helpers.launching import run as run_command
from helpers.tiny import tiny_texts
from inbatch.callbacks.encode import Place, ShardedEncode
from inbatch.cli.evaluate import evaluate
from inbatch.cli.overrides import complete_overrides
from inbatch.cli.train import CONF_DIR
from inbatch.config.check_judging import check_evaluate
from inbatch.config.composition import compose
from inbatch.config.judging import EvaluateConfig
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.evaluation import (
    InformationRetrievalEvaluator,
    RerankingEvaluator,
    RetrievalSetsEvaluator,
    TripletEvaluator,
    information_retrieval,
)
from inbatch.evaluation.retrieval_data import make_retrieval_data
from inbatch.evaluation.search import TILE
from inbatch.evaluation.views import evaluate_views, views_of


def retrieval(name: str, num_queries: int) -> InformationRetrievalEvaluator:
    corpus = {f"d{i}": text for i, text in enumerate(tiny_texts(400, seed=1, max_words=20))}
    texts = dict.fromkeys(tiny_texts(2 * num_queries, seed=2))
    queries = {f"q{i}": text for i, text in enumerate([*texts][:num_queries])}
    judged = {(query, f"d{i % 400}"): 1.0 for i, query in enumerate(queries)}
    data = make_retrieval_data(queries, corpus, judged)
    return InformationRetrievalEvaluator(
        data, name=name, similarity=["cosine", "euclidean"], corpus_chunk_size=150
    )


def judge(
    rank: int, world_size: int, model: Path, rows: Path, folder: Path
) -> tuple[dict[str, float], set[int], Tensor]:
    """Metrics of a rank, how many queries it searched for at a time, and embeddings of all texts."""
    if world_size > 1:
        gloo()
    searched: set[int] = set()
    search = information_retrieval.search_block

    def noted(keys: Tensor, queries: Tensor, *args: Any, **options: Any) -> Tensor:
        searched.add(len(queries))
        return search(keys, queries, *args, **options)

    place = Place(torch.device("cpu"), rank, world_size)
    encode = ShardedEncode(place, build_encoder(str(model)), chunk_tokens=512)
    sets = RetrievalSetsEvaluator([retrieval("two_tiles", TILE + 9), retrieval("one", 5)], name="s")
    evaluators = [
        sets,
        TripletEvaluator(str(rows), name="triplet"),
        RerankingEvaluator(str(rows), name="rerank"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(information_retrieval, "search_block", noted)
        views = views_of([8], ["int8", "ubinary"])
        metrics = evaluate_views(evaluators, encode, views, folder / f"kept.{rank}")
    texts = tiny_texts(70, seed=5, max_words=40)
    return metrics, searched, encode(texts, role=None)


def write_rows(path: Path) -> Path:
    names = ("query", "positive", "negative")
    rows = zip(*(tiny_texts(50, seed=seed) for seed in range(3)))
    path.write_text("".join(json.dumps(dict(zip(names, row))) + "\n" for row in rows))
    return path


def test_ranks_share_the_work_and_change_no_bit(tiny_bert: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    alone, searched, embeddings = judge(0, 1, tiny_bert, rows, tmp_path)
    assert searched == {TILE + 9, 5}
    first, second = run(judge, 2, tiny_bert, rows, tmp_path)
    assert first[0] == second[0] == alone
    assert np.isfinite([*alone.values()]).all()
    assert torch.equal(first[2], embeddings)
    assert torch.equal(second[2], embeddings)
    assert (first[1], second[1]) == ({TILE, 0}, {9, 5})  # a tile is not shared
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.slow
def test_the_command_starts_ranks_and_writes_what_one_process_writes(
    tiny_bert: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    model = tmp_path / "model"
    build_encoder(str(tiny_bert)).save(model)

    given = [f"encoder.model={model}", f"data.eval={rows}", "device=cpu"]
    two, one = tmp_path / "two", tmp_path / "one"
    script = str(ROOT / "scripts" / "evaluate.py")
    line = [sys.executable, script, *given, "devices=2", f"output_dir={two}"]
    ended = run_command(line, folder=tmp_path)
    assert ended.code == 0, ended.output
    assert ended.output.count("written.metrics") == 1
    evaluate(configured(*given, f"output_dir={one}"))
    assert (two / "metrics.json").read_text() == (one / "metrics.json").read_text()
    wrong = re.escape("devices='none' is not a number of processes: set auto, 1, 2, ...")
    with pytest.raises(ConfigError, match=wrong):
        evaluate(configured(*given, "devices=none"))


def configured(*words: str) -> EvaluateConfig:
    return check_evaluate(compose("evaluate", complete_overrides(words, Path(CONF_DIR))))
