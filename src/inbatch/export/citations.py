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
_MODEL_SOUPS = """
@inproceedings{wortsman2022model,
    title = {Model soups: averaging weights of multiple fine-tuned models improves accuracy without
        increasing inference time},
    author = {Wortsman, Mitchell and Ilharco, Gabriel and Gadre, Samir Ya and Roelofs, Rebecca and
        Gontijo-Lopes, Raphael and Morcos, Ari S. and Namkoong, Hongseok and Farhadi, Ali and
        Carmon, Yair and Kornblith, Simon and Schmidt, Ludwig},
    booktitle = {Proceedings of the 39th International Conference on Machine Learning},
    year = {2022},
    eprint = {2203.05482},
    archivePrefix = {arXiv}
}"""
_SLERP = """
@inproceedings{shoemake1985animating,
    title = {Animating rotation with quaternion curves},
    author = {Shoemake, Ken},
    booktitle = {Proceedings of the 12th Annual Conference on Computer Graphics and Interactive
        Techniques},
    year = {1985},
    doi = {10.1145/325334.325242}
}"""
_OF_MERGING = {
    "mean": ("Model Soups", _MODEL_SOUPS),
    "greedy": ("Model Soups", _MODEL_SOUPS),
    "slerp": ("Slerp", _SLERP),
}


def loss_name(loss: str, published: Published | None, *, cached: bool = False) -> str:
    """The name of a loss in cards and tags: that of sentence-transformers if it has the loss."""
    if published is None:
        return loss
    name = published.cached_name or published.name if cached else published.name
    return name or loss


def loss_page(published: Published | None, *, cached: bool = False) -> str | None:
    """Address of the documentation of a loss that sentence-transformers has."""
    if published is None or published.name is None:
        return None
    return f"{_LOSS_PAGE}{loss_name('', published, cached=cached).lower()}"


def citations(
    losses: Iterable[Published], *, cached: bool = False, merged: str | None = None
) -> dict[str, str]:
    """BibTeX by heading: sentence-transformers, and what the losses rest on, or the method of merging."""
    found = {"Sentence Transformers": _SENTENCE_TRANSFORMERS}
    for loss in losses:
        if loss.bibtex is not None:
            heading = loss.heading or loss.name
            assert heading is not None
            found[heading] = loss.bibtex
    if cached:
        found["GradCache"] = _GRADIENT_CACHE
    if merged is not None:
        heading, bibtex = _OF_MERGING[merged]
        found[heading] = bibtex
    return {heading: text.strip() for heading, text in found.items()}
