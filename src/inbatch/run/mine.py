"""A saved model and training rows -> the rows with hard negatives, and a report.

What is embedded and mined stays: the same settings go on where a command was stopped or killed, on any number
of ranks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from inbatch.config.instantiate import instantiate
from inbatch.config.mine import MineConfig, MineGuideConfig
from inbatch.config.targets import errors_under
from inbatch.console import make_console, print_plain, run_table
from inbatch.corpus.embed import EmbedSettings, forward_tokens
from inbatch.corpus.load import Corpus, load_texts
from inbatch.corpus.store import StoredEmbeddings
from inbatch.corpus.texts import TextKeys
from inbatch.data.sources.load import load_sources
from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.resolve import resolve_directory
from inbatch.guide import Process
from inbatch.mining.approximate import build_index, load_faiss
from inbatch.mining.blocks import Scorer
from inbatch.mining.build import make_form, make_miner, make_search
from inbatch.mining.corpus import CorpusColumn
from inbatch.mining.embedded import check_similarity, embed_training_set, open_corpus
from inbatch.mining.identity import INDEX, claim, settings_of
from inbatch.mining.rows import RowForm
from inbatch.mining.run import run_mining
from inbatch.mining.training_set import TrainingSet, read_training_set
from inbatch.run.processes import held_folder, start_ranks
from inbatch.strategies import World, find_world

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CORPUS = TextKeys("mine.corpus", "mine.corpus_columns", id="key")
EMBEDDINGS = "embeddings"


class Clock:
    """CPU and wall seconds of this process since the last look, by what they were spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, tuple[float, float]] = {}
        self._last = (time.process_time(), time.monotonic())

    def note(self, what: str) -> None:
        """Count what was spent since the last look for `what`."""
        now = (time.process_time(), time.monotonic())
        self.spent[what] = (now[0] - self._last[0], now[1] - self._last[1])
        self._last = now

    def texts(self) -> dict[str, str]:
        """For people."""
        return {
            name: f"{cpu:.1f} s of CPU, {wall:.1f} s" for name, (cpu, wall) in self.spent.items()
        }


class Given(NamedTuple):
    """What is read before ranks start."""

    training: TrainingSet
    corpus: Corpus | None
    column: CorpusColumn | None
    encoder: Encoder
    guide: Encoder | None
    stored: StoredEmbeddings | None


def mine(run: MineConfig) -> Path:
    """Mine for the rows of a checked configuration; returns the folder of the results.

    Raises:
        ConfigError: a model, file, folder or device that cannot be used.
    """
    clock = Clock()
    world = find_world(run.trainer.accelerator, run.trainer.devices, run.trainer.num_nodes)
    if run.mine.search == "faiss":
        load_faiss()
    given = _read(run)
    form = make_form(run.mine, guided=given.guide is not None)
    process, folder = start_ranks(world), Path(run.output_dir)
    with held_folder(folder, process):
        _mine_into(folder, run, given, form, process, world, clock)
        process.barrier()
    return folder


def _mine_into(
    folder: Path,
    run: MineConfig,
    given: Given,
    form: RowForm,
    process: Process,
    world: World,
    clock: Clock,
) -> None:
    keys = run.mine
    if process.rank == 0:
        claim(folder, _settings(run, given, process))
        run_table(_overview(run, given, form, world))
    process.barrier()
    clock.note("reading")
    model, guide = _embed(run, given, folder, process)
    clock.note("embedding")
    index = folder / INDEX
    if keys.search == "faiss":
        if process.rank == 0:
            build_index(index, model.documents, normalize=model.normalize, factory=keys.faiss_index)
        process.barrier()
    find = make_search(keys, model, index=index, device=process.device)
    miner = make_miner(given.training, keys, model=model, guide=guide, find=find, seed=run.seed)
    report = run_mining(
        miner, form, folder, process=process, settings=asdict(keys), note=clock.note
    )
    if process.rank == 0:
        written = folder / f"mined-*.{form.files}"
        run_table({"mined": _said(report), "spent": clock.texts()})
        print_plain(f"train on it with data.train='{written}'", console=make_console())


def _read(run: MineConfig) -> Given:
    sources = load_sources(run.data.train, cache_dir=run.data.cache_dir)
    corpus = column = None
    if run.mine.corpus is not None:
        columns = dict(run.mine.corpus_columns)
        columns.setdefault("key", None)  # none is recognised by its name
        corpus = load_texts(run.mine.corpus, columns, cache_dir=run.data.cache_dir, keys=_CORPUS)
        column = CorpusColumn(corpus.texts, None if columns["key"] is None else corpus.ids)
    training = read_training_set(sources, column)
    encoder = instantiate(run.encoder, key="encoder")
    check_similarity(encoder, field="encoder")
    stored = None
    if run.mine.corpus_embeddings is not None:
        assert column is not None
        stored = open_corpus(run.mine.corpus_embeddings, column, encoder)
    return Given(training, corpus, column, encoder, _guide(run.guide), stored)


def _guide(guide: MineGuideConfig) -> Encoder | None:
    if guide.model is None:
        return None
    with errors_under("guide", asdict(guide)):
        encoder = build_encoder(
            str(resolve_directory(guide.model, field="guide.model", revision=guide.revision)),
            max_length=guide.max_length,
            prompts=guide.prompts,
            trust_remote_code=guide.trust_remote_code,
        )
    check_similarity(encoder, field="guide")
    return encoder


def _embed(
    run: MineConfig, given: Given, folder: Path, process: Process
) -> tuple[Scorer, Scorer | None]:
    """The embeddings by the model and by the guide."""
    settings = EmbedSettings(
        chunk_tokens=_chunk_tokens(run),
        compute_dtype=_DTYPES[run.precision],
    )
    model = embed_training_set(
        given.encoder,
        given.training,
        folder / EMBEDDINGS / "model",
        process=process,
        settings=settings,
        stored=given.stored,
    )
    if given.guide is None:
        return model, None
    return model, embed_training_set(
        given.guide,
        given.training,
        folder / EMBEDDINGS / "guide",
        process=process,
        settings=settings,
        field="guide",
    )


def _settings(run: MineConfig, given: Given, process: Process) -> dict[str, Any]:
    models = {"encoder": given.encoder} | ({} if given.guide is None else {"guide": given.guide})
    return settings_of(
        run,
        given.training,
        given.encoder,
        given.guide,
        chunk_tokens={
            name: forward_tokens(model, _chunk_tokens(run), process.device)
            for name, model in models.items()
        },
        stored=given.stored,
    )


def _chunk_tokens(run: MineConfig) -> int | None:
    return None if run.chunk_tokens == "auto" else run.chunk_tokens


def _overview(
    run: MineConfig, given: Given, form: RowForm, world: World
) -> Mapping[str, Mapping[str, str]]:
    training, keys = given.training, run.mine
    data = {
        "rows": f"{len(training.query_of_row):,}",
        "queries": f"{len(training.queries):,} different ones",
        "documents": f"{len(training.documents):,} different ones",
    }
    if given.corpus is not None:
        data["corpus"] = f"{len(given.corpus.texts):,} texts; {given.corpus.read_as}"
        if given.corpus.dropped:
            data["left out"] = "; ".join(each.describe() for each in given.corpus.dropped)
    if training.keys is not None:
        data["keys"] = "rows with an equal key are no negatives of each other"
    limits = {
        name: value
        for name in ("max_score", "min_score", "absolute_margin", "guide_margin")
        if (value := getattr(keys, name)) is not None
    }
    if keys.margin is not None:
        limits["relative_margin"] = keys.margin
    values = {
        "negatives": f"{keys.num_negatives} of each query by mine.choice={keys.choice}",
        "limits": ", ".join(f"{name} {value:g}" for name, value in limits.items()) or "none",
        "scores": form.scores,
        "search": keys.search,
        "ranks": f"{world.size}",
    }
    model = {"model": given.encoder.base_model or "random weights"}
    if run.guide.model is not None:
        model["guide"] = run.guide.model
    return {"data": data, "encoder": model, "mine": values}


def _said(report: Mapping[str, Any]) -> dict[str, str]:
    rows = report["rows"]
    return {
        "negatives": f"{report['negatives']:,} of {report['queries']:,} queries",
        "rows": f"{rows['written']:,} written, {rows['left_out']:,} left out for want of negatives, "
        f"{rows['with_fewer_negatives']:,} with fewer than asked for",
    }
