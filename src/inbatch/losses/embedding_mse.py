"""Squared differences between embeddings and the guide's. Shape letters: n texts, E the guide's dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from inbatch.losses.base import Published
from inbatch.losses.embedding_distance import EmbeddingDistance

_PUBLISHED = Published(
    "MSELoss",
    bibtex="""@inproceedings{reimers2020multilingual,
    title = {Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation},
    author = {Nils Reimers and Iryna Gurevych},
    booktitle = {Proceedings of the 2020 Conference on Empirical Methods in Natural Language
        Processing},
    year = {2020},
    publisher = {Association for Computational Linguistics},
    url = {https://arxiv.org/abs/2004.09813}
}""",
)


@dataclass(frozen=True)
class EmbeddingMSE(EmbeddingDistance):
    """Mean over texts and dimensions of ``(student's embedding - guide's)^2`` of the same text.

    Every column counts alike; with lists, every text of a row. Lengths count: where the guide's embeddings
    have unit length, so should the student's (a `normalize` layer). `projection` lets dimensions differ.

    Equals sentence-transformers' MSELoss with one target a column, and `projection` its projection_dim.
    Paper: Reimers and Gurevych 2020, arXiv:2004.09813.
    """

    published: ClassVar[Published] = _PUBLISHED

    def distances(self, student_nE: Tensor, guide_nE: Tensor) -> Tensor:
        """Means over dimensions, [n]."""
        return (student_nE - guide_nE).square().mean(1)
