"""The embeddings of queries and documents by a model: those that are stored, and the others computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np

from inbatch.corpus.embed import EmbedSettings, embed_corpus
from inbatch.corpus.identity import describe
from inbatch.corpus.store import StoredEmbeddings, open_embeddings
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.guide.base import Process
from inbatch.mining.blocks import Scorer
from inbatch.mining.corpus import CorpusColumn
from inbatch.mining.distinct import DistinctTexts
from inbatch.mining.training_set import TrainingSet
from inbatch.mining.vectors import JoinedVectors, Vectors

_FIELD = "mine.corpus_embeddings"


def embed_training_set(
    encoder: Encoder,
    training: TrainingSet,
    folder: Path,
    *,
    process: Process,
    settings: EmbedSettings,
    stored: Vectors | None = None,
    field: str = "encoder",
) -> Scorer:
    """Embed what a folder lacks; every rank calls it.

    Args:
        encoder: the model.
        training: whose queries and documents are embedded.
        folder: of the embeddings.
        process: which of how many this is.
        settings: sizes and types.
        stored: embeddings of all rows of the corpus, which are not computed again; None for none.
        field: configuration key of the model.

    Raises:
        ConfigError: the folder holds those of something else, one is not finite, or the model compares
            embeddings by a distance.
    """
    normalize = check_similarity(encoder, field=field)
    settings = replace(settings, field=field)
    prompts = {role: encoder.prompt_for(role) for role in ("query", "document")}

    def embed(texts: DistinctTexts | _Behind, name: str, prompt: str) -> StoredEmbeddings:
        return embed_corpus(
            encoder, texts, folder / name, prompt=prompt, process=process, settings=settings
        )

    queries = embed(training.queries, "queries", prompts["query"])
    documents = training.documents
    if stored is None:
        return Scorer(queries, embed(documents, "documents", prompts["document"]), normalize)
    rows = documents.rows_of_first_column()
    others = _Behind(documents, len(rows))
    numbers = np.concatenate([rows, len(stored) + np.arange(len(others))])
    parts: list[Vectors] = [stored]
    if len(others):
        parts.append(embed(others, "other_documents", prompts["document"]))
    return Scorer(queries, JoinedVectors(parts, numbers), normalize)


def check_similarity(encoder: Encoder, *, field: str) -> bool:
    """Whether embeddings are compared by their cosine; else by their dot product.

    Raises:
        ConfigError: they are compared by a distance.
    """
    if encoder.similarity in ("cosine", "dot"):
        return encoder.similarity == "cosine"
    raise ConfigError(
        f"{field}.similarity",
        "is a distance, by which nothing is searched here",
        "set cosine or dot",
        value=encoder.similarity,
    )


def open_corpus(folder: str, corpus: CorpusColumn, encoder: Encoder) -> StoredEmbeddings:
    """The embeddings of a corpus that `inbatch embed` has stored.

    Raises:
        ConfigError: they are of other texts, of another model or prompt, of other dimensions, scaled where
            lengths matter, or not of floating numbers.
    """
    stored = open_embeddings(folder)
    own = describe(
        encoder,
        corpus.texts,
        None,
        prompt=encoder.prompt_for("document"),
        precision="",
        chunk_tokens=0,
        ranges="",
    )
    made_from = stored.manifest.made_from
    words = {
        "texts": f"are of other texts than mine.corpus ({len(stored):,}, now {len(corpus.texts):,})",
        "encoder": f"are of another model ({made_from.get('model') or 'without a name'})",
        "prompt": f"are of texts behind the prompt {made_from.get('prompt')!r}, not {own['prompt']!r}",
    }
    for key, problem in words.items():
        if made_from.get(key) != own[key]:
            fix = "embed the corpus with this model and role=document, or leave it out"
            raise ConfigError(_FIELD, problem, fix, value=folder)
    form = stored.manifest.form
    if form.dimension != encoder.output_dimension:
        problem = f"have {form.dimension} dimensions, not {encoder.output_dimension}"
        fix = f"embed the corpus with encoder.truncate_dim={encoder.output_dimension}"
        raise ConfigError(_FIELD, problem, fix, value=folder)
    if form.normalize and encoder.similarity == "dot":
        problem = "are scaled to length one, which changes dot products (encoder.similarity=dot)"
        fix = "embed the corpus with normalize=false"
        raise ConfigError(_FIELD, problem, fix, value=folder)
    if stored.dtype not in ("float32", "float16"):
        fix = "embed the corpus with dtype=float32 or float16"
        raise ConfigError(_FIELD, f"are {stored.dtype}", fix, value=folder)
    return stored


@final
class _Behind:
    """The texts from a number on."""

    def __init__(self, texts: DistinctTexts, first: int) -> None:
        self._texts, self._first = texts, first

    def __len__(self) -> int:
        return len(self._texts) - self._first

    def read(self, start: int, stop: int) -> list[str]:
        """See `Texts`."""
        return self._texts.read(self._first + start, self._first + stop)
