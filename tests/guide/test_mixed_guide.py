"""A stored guide in batches that hold rows of several sources: what a live one gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.guides import ALONE, make_guide, make_source
from helpers.runs import metrics, run_train, write_triplets
from helpers.tiny import tiny_texts, tiny_tokenizer
from inbatch.batch.batch import Batch
from inbatch.data.collate import MIXED, BatchDataset, Collator
from inbatch.data.plan.plan import PlannedSlice
from inbatch.data.sources.load import Source
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.guide import Guide, LiveGuide, StoredGuide
from inbatch.guide.fill import FillSettings

CPU = torch.device("cpu")
PROMPTS = {"query": "red phone ", "document": "blue case "}


def _sources() -> list[Source]:
    """The second one's query has the name of another role, which a prompt would follow."""
    texts = [tiny_texts(20, seed=7 + column, min_words=3) for column in range(3)]
    names = ("document", "answer", "hard_negative")
    roles = {"query": "document", "positive": "answer", "negatives": ["hard_negative"]}
    return [make_source(), Source.from_columns("other", dict(zip(names, texts)), mapping=roles)]


def _batch(guide: Guide, sources: list[Source]) -> Batch:
    collator = Collator(
        tokenizer=guide.tokenizer or TextTokenizer(hf=tiny_tokenizer(), max_length=64),
        guide_tokenizer=guide.tokenizer,
        guide_prompts=guide.prompts,
    )
    rows, of = np.array([3, 17, 5, 9, 0]), np.array([0, 1, 1, 0, 1])
    return BatchDataset(sources, collator)[PlannedSlice(0, -1, rows, 5, of)]


@pytest.mark.parametrize("prompts", [{}, PROMPTS], ids=["no prompts", "prompts"])
def test_embeddings_of_mixed_rows_equal_the_live_guides(
    tiny_bert: Path, tmp_path: Path, prompts: dict[str, str]
) -> None:
    sources = _sources()
    live = LiveGuide(make_guide(tiny_bert, prompts=prompts))
    kept = StoredGuide(
        make_guide(tiny_bert, prompts=prompts),
        sources,
        store_dir=tmp_path,
        store_dtype="float32",
        fill=FillSettings(chunk_tokens=256),
    )
    kept.start(ALONE)
    batch = _batch(kept, sources)
    assert batch.source == MIXED
    wanted = live.embed(_batch(live, sources), CPU)
    torch.testing.assert_close(kept.embed(batch, CPU), wanted, atol=1e-6, rtol=0)


def test_a_run_of_mixed_batches_with_a_stored_guide(tiny_bert: Path, tmp_path: Path) -> None:
    options = [
        *(
            f"data.train.{name}={write_triplets(tmp_path / f'{name}.jsonl', 30, seed=seed)}"
            for name, seed in (("one", 0), ("two", 20))
        ),
        "global_batch_size=8",
        "sampler=proportional",
        "sampler.mixed=true",
        "loss=gist",
        "guide=minilm",
        f"guide.model={tiny_bert}",
        "guide.store_dtype=float32",
        f"guide.store_dir={tmp_path / 'store'}",
    ]
    losses = []
    for mode in ("stored", "live"):
        output = tmp_path / mode
        mode_options = ["guide.mode=live"] if mode == "live" else []
        run_train(*options, *mode_options, f"output_dir={output}")
        losses.append([row["train/loss"] for row in metrics(output) if "train/loss" in row])
    assert len(losses[0]) == 8
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
