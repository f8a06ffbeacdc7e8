"""Losses and methods as the field knows them: names, documentation pages, BibTeX.

Hub tags and searches use the names that sentence-transformers gives to losses, so cards do too.
"""

from __future__ import annotations

from collections.abc import Iterable

from inbatch.losses import Published

_LOSS_PAGE = "https://sbert.net/docs/package_reference/sentence_transformer/losses.html#"

_SENTENCE_TRANSFORMERS = """
@inproceedings{reimers-2019-sentence-bert,
    title = "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of the 2019 Conference on Empirical Methods in Natural Language
        Processing",
    month = "11",
    year = "2019",
    publisher = "Association for Computational Linguistics",
    url = "https://arxiv.org/abs/1908.10084",
}"""
_GRADIENT_CACHE = """
@misc{gao2021scaling,
    title = {Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup},
    author = {Luyu Gao and Yunyi Zhang and Jiawei Han and Jamie Callan},
    year = {2021},
    eprint = {2101.06983},
    archivePrefix = {arXiv},
    primaryClass = {cs.LG}
}"""


def loss_name(loss: str, published: Published | None, *, cached: bool = False) -> str:
    """The name of a loss in cards and tags: that of sentence-transformers if it has the loss."""
    if published is None:
        return loss
    return published.cached_name or published.name if cached else published.name


def loss_page(published: Published | None, *, cached: bool = False) -> str | None:
    """Address of the documentation of a loss that sentence-transformers has."""
    return f"{_LOSS_PAGE}{loss_name('', published, cached=cached).lower()}" if published else None


def citations(losses: Iterable[Published], *, cached: bool = False) -> dict[str, str]:
    """BibTeX by heading: sentence-transformers, and what the losses rest on."""
    found = {"Sentence Transformers": _SENTENCE_TRANSFORMERS}
    for loss in losses:
        if loss.bibtex is not None:
            found[loss.heading or loss.name] = loss.bibtex
    if cached:
        found["GradCache"] = _GRADIENT_CACHE
    return {heading: text.strip() for heading, text in found.items()}
