"""Cosines of embeddings with the guide's. Shape letters: n texts, E the guide's dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from inbatch.losses.base import Published
from inbatch.losses.embedding_distance import EmbeddingDistance
from inbatch.losses.pairs import pair_cosine

_PUBLISHED = Published(
    "EmbedDistillLoss",
    bibtex="""@misc{kim2023embeddistill,
    title = {EmbedDistill: A Geometric Knowledge Distillation for Information Retrieval},
    author = {Seungyeon Kim and Ankit Singh Rawat and Manzil Zaheer and Sadeep Jayasumana and
        Veeranjaneyulu Sadhanala and Wittawat Jitkrittum and Aditya Krishna Menon and
        Rob Fergus and Sanjiv Kumar},
    year = {2023},
    eprint = {2301.12005},
    archivePrefix = {arXiv},
    primaryClass = {cs.IR}
}""",
)


@dataclass(frozen=True)
class EmbeddingCosine(EmbeddingDistance):
    """Mean over texts of ``1 - cos(student's embedding, guide's)`` of the same text.

    Every column counts alike; with lists, every text of a row. `projection` lets dimensions differ.

    Equals sentence-transformers' EmbedDistillLoss with its default distance_metric.
    Papers: Kim et al. 2023, arXiv:2301.12005; Reimers and Gurevych 2020, arXiv:2004.09813.
    """

    published: ClassVar[Published] = _PUBLISHED

    @property
    def ignores_lengths(self) -> bool:
        """True without a projection, whose bias depends on them."""
        return not self.projection

    def distances(self, student_nE: Tensor, guide_nE: Tensor) -> Tensor:
        """1 - cosine, [n]."""
        return 1 - pair_cosine(student_nE, guide_nE)
