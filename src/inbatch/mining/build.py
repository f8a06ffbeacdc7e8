"""The parts of a mining from its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from inbatch.config.mine import MineKeys
from inbatch.mining.approximate import FaissSearch
from inbatch.mining.blocks import Miner, Scorer, Search
from inbatch.mining.choice import Choice
from inbatch.mining.filters import Limits
from inbatch.mining.rows import RowForm
from inbatch.mining.search import search
from inbatch.mining.training_set import TrainingSet

_TEMPERATURE = 0.05
_ROOM = 10  # candidates for each negative, where some are left out


def make_miner(
    training: TrainingSet,
    keys: MineKeys,
    *,
    model: Scorer,
    guide: Scorer | None,
    find: Search,
    seed: int,
) -> Miner:
    """What the negatives follow from.

    Args:
        training: what is known of the rows.
        keys: of `mine`.
        model: whose scores decide.
        guide: another model, None for none.
        find: finds documents by the model.
        seed: of what is drawn.
    """
    num, most = keys.num_negatives, training.most_positives()
    range_max = keys.range_max or keys.range_min + num * (_ROOM if keys.filters else 1) + most
    return Miner(
        training=training,
        model=model,
        guide=guide,
        search=find,
        depth=range_max + training.most_known(),
        limits=Limits(
            range_min=keys.range_min,
            range_max=range_max,
            max_score=keys.max_score,
            min_score=keys.min_score,
            absolute_margin=keys.absolute_margin,
            relative_margin=keys.margin,
            guide_margin=keys.guide_margin,
        ),
        choice=Choice(
            num_negatives=num,
            how=keys.choice,
            temperature=keys.temperature or _TEMPERATURE,
            seed=seed,
        ),
        block_queries=keys.block_queries,
    )


def make_search(keys: MineKeys, model: Scorer, *, index: Path, device: torch.device) -> Search:
    """The search of a configuration.

    Args:
        keys: of `mine`.
        model: whose documents are found.
        index: file of the index of an approximate search, which is there.
        device: of the exact search.

    Raises:
        ConfigError: faiss is asked for, and not installed.
    """
    if keys.search == "faiss":
        return FaissSearch(
            index, model.documents, normalize=model.normalize, probes=keys.faiss_probes
        )
    return lambda queries_QD, k: search(
        queries_QD, model.documents, k, normalize=model.normalize, device=device
    )


def make_form(keys: MineKeys, *, guided: bool) -> RowForm:
    """How the rows are written.

    Args:
        keys: of `mine`.
        guided: whether there is a guide.
    """
    tuples = keys.output == "n-tuple"
    auto: Literal["model", "guide", "none"] = "none" if tuples else "guide" if guided else "model"
    # A triplet has a negative, and a tuple all of them.
    least = {"list": keys.min_negatives, "triplet": max(1, keys.min_negatives)}
    return RowForm(
        output=keys.output,
        scores=auto if keys.scores == "auto" else keys.scores,
        files=keys.files,
        num_negatives=keys.num_negatives,
        min_negatives=least.get(keys.output, keys.num_negatives),
        shard_rows=keys.shard_rows,
    )
