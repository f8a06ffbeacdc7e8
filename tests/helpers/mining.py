"""Mining on embeddings that a test gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inbatch.config.mine import MineKeys
from inbatch.corpus.texts import TextList
from inbatch.data.sources.load import Source
from inbatch.mining.blocks import Miner, Scorer
from inbatch.mining.build import make_form, make_miner, make_search
from inbatch.mining.corpus import CorpusColumn
from inbatch.mining.distinct import DistinctTexts
from inbatch.mining.rows import join_blocks, shard_table, shards_of
from inbatch.mining.training_set import TrainingSet, read_training_set
from inbatch.mining.vectors import ArrayVectors

Columns = Mapping[str, Sequence[object]]


def training_set(
    columns: Columns,
    *,
    corpus: Sequence[str] = (),
    mapping: Mapping[str, object] | None = None,
) -> TrainingSet:
    """A training set of rows in memory, and perhaps a corpus."""
    source = Source.from_columns("train", columns, mapping=mapping)
    return read_training_set([source], CorpusColumn(TextList(corpus)) if corpus else None)


def scorer(training: TrainingSet, vectors: Mapping[str, np.ndarray], *, normalize: bool) -> Scorer:
    """The embeddings of all texts."""

    def of(texts: DistinctTexts) -> ArrayVectors:
        return ArrayVectors(np.stack([vectors[text] for text in texts.read(0, len(texts))]))

    return Scorer(of(training.queries), of(training.documents), normalize)


def miner(
    training: TrainingSet,
    vectors: Mapping[str, np.ndarray],
    keys: MineKeys,
    *,
    guide: Mapping[str, np.ndarray] | None = None,
    normalize: bool = True,
    seed: int = 42,
) -> Miner:
    """What the command makes of these keys."""
    model = scorer(training, vectors, normalize=normalize)
    find = make_search(keys, model, index=Path("none"), device=torch.device("cpu"))
    other = None if guide is None else scorer(training, guide, normalize=normalize)
    return make_miner(training, keys, model=model, guide=other, find=find, seed=seed)


def mined_rows(mining: Miner, keys: MineKeys) -> list[dict[str, Any]]:
    """The rows that the command would write."""
    form = make_form(keys, guided=mining.guide is not None)
    blocks = [mining.mine(number) for number in range(mining.num_blocks)]
    mined = join_blocks(blocks, form.scores)
    rows: list[dict[str, Any]] = []
    for shard in shards_of(mining.training, form.shard_rows):
        rows += shard_table(shard, mining.training, mined, form).to_pylist()
    return rows
