"""Losses and methods as the world knows them: names, documentation pages, BibTeX.

Hub tags and searches use the names that sentence-transformers gives to losses, so cards do too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_LOSS_PAGE = "https://sbert.net/docs/package_reference/sentence_transformer/losses.html#"


class KnownLoss(NamedTuple):
    """The names of a loss in sentence-transformers, plain and with cached gradients, and its citations."""

    name: str
    cached_name: str | None = None
    citations: tuple[str, ...] = ()


LOSSES = {
    "MultipleNegativesRanking": KnownLoss(
        "MultipleNegativesRankingLoss",
        "CachedMultipleNegativesRankingLoss",
        ("MultipleNegativesRankingLoss",),
    ),
    "GIST": KnownLoss("GISTEmbedLoss", "CachedGISTEmbedLoss", ("GISTEmbedLoss",)),
    "Contrastive": KnownLoss("ContrastiveLoss", None, ("ContrastiveLoss",)),
    "OnlineContrastive": KnownLoss("OnlineContrastiveLoss", None, ("ContrastiveLoss",)),
    "CosineSimilarity": KnownLoss("CosineSimilarityLoss"),
    "CoSENT": KnownLoss("CoSENTLoss", None, ("CoSENTLoss",)),
    "AnglE": KnownLoss("AnglELoss", None, ("AnglELoss",)),
    "Triplet": KnownLoss("TripletLoss", None, ("TripletLoss",)),
    "Matryoshka": KnownLoss("MatryoshkaLoss", None, ("MatryoshkaLoss",)),
}

BIBTEX = {
    "Sentence Transformers": """
@inproceedings{reimers-2019-sentence-bert,
    title = "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of the 2019 Conference on Empirical Methods in Natural Language
        Processing",
    month = "11",
    year = "2019",
    publisher = "Association for Computational Linguistics",
    url = "https://arxiv.org/abs/1908.10084",
}""",
    "MultipleNegativesRankingLoss": """
@misc{henderson2017efficient,
    title = {Efficient Natural Language Response Suggestion for Smart Reply},
    author = {Matthew Henderson and Rami Al-Rfou and Brian Strope and Yun-hsuan Sung and
        Laszlo Lukacs and Ruiqi Guo and Sanjiv Kumar and Balint Miklos and Ray Kurzweil},
    year = {2017},
    eprint = {1705.00652},
    archivePrefix = {arXiv},
    primaryClass = {cs.CL}
}""",
    "GISTEmbedLoss": """
@misc{solatorio2024gistembed,
    title = {GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding
        Fine-tuning},
    author = {Aivin V. Solatorio},
    year = {2024},
    eprint = {2402.16829},
    archivePrefix = {arXiv},
    primaryClass = {cs.LG}
}""",
    "GradCache": """
@misc{gao2021scaling,
    title = {Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup},
    author = {Luyu Gao and Yunyi Zhang and Jiawei Han and Jamie Callan},
    year = {2021},
    eprint = {2101.06983},
    archivePrefix = {arXiv},
    primaryClass = {cs.LG}
}""",
    "ContrastiveLoss": """
@inproceedings{hadsell2006dimensionality,
    title = {Dimensionality Reduction by Learning an Invariant Mapping},
    author = {Hadsell, R. and Chopra, S. and LeCun, Y.},
    booktitle = {2006 IEEE Computer Society Conference on Computer Vision and Pattern Recognition
        (CVPR'06)},
    year = {2006},
    volume = {2},
    pages = {1735-1742},
    doi = {10.1109/CVPR.2006.100}
}""",
    "CoSENTLoss": """
@article{huang2024cosent,
    title = {CoSENT: Consistent Sentence Embedding via Similarity Ranking},
    author = {Huang, Xiang and Peng, Hao and Zou, Dongcheng and Liu, Zhiwei and Li, Jianxin and
        Liu, Kay and Wu, Jia and Su, Jianlin and Yu, Philip S.},
    journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
    year = {2024},
    doi = {10.1109/TASLP.2024.3402087}
}""",
    "AnglELoss": """
@misc{li2023angle,
    title = {AnglE-optimized Text Embeddings},
    author = {Xianming Li and Jing Li},
    year = {2023},
    eprint = {2309.12871},
    archivePrefix = {arXiv},
    primaryClass = {cs.CL}
}""",
    "TripletLoss": """
@inproceedings{schroff2015facenet,
    title = {FaceNet: A Unified Embedding for Face Recognition and Clustering},
    author = {Florian Schroff and Dmitry Kalenichenko and James Philbin},
    booktitle = {2015 IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
    year = {2015},
    eprint = {1503.03832},
    archivePrefix = {arXiv}
}""",
    "MatryoshkaLoss": """
@misc{kusupati2022matryoshka,
    title = {Matryoshka Representation Learning},
    author = {Aditya Kusupati and Gantavya Bhatt and Aniket Rege and Matthew Wallingford and
        Aditya Sinha and Vivek Ramanujan and William Howard-Snyder and Kaifeng Chen and
        Sham Kakade and Prateek Jain and Ali Farhadi},
    year = {2022},
    eprint = {2205.13147},
    archivePrefix = {arXiv},
    primaryClass = {cs.LG}
}""",
}


def loss_name(loss: str, *, cached: bool = False) -> str:
    """The name of a loss in cards and tags: that of sentence-transformers where it has the loss."""
    known = LOSSES.get(loss)
    if known is None:
        return loss
    return known.cached_name or known.name if cached else known.name


def loss_page(name: str) -> str | None:
    """Address of the documentation of a loss that sentence-transformers has."""
    documented = {name for known in LOSSES.values() for name in (known.name, known.cached_name)}
    return f"{_LOSS_PAGE}{name.lower()}" if name in documented else None


def citations(losses: Iterable[str], *, cached: bool = False) -> dict[str, str]:
    """BibTeX by heading: sentence-transformers, and what the losses rest on."""
    keys = ["Sentence Transformers"]
    for loss in losses:
        keys += LOSSES[loss].citations if loss in LOSSES else ()
    keys += ["GradCache"] if cached else []
    return {key: BIBTEX[key].strip() for key in dict.fromkeys(keys)}
