"""Losses: pure functions of embeddings. README.md says which to take for which data."""

from inbatch.losses.angle import AnglE
from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.contrastive import Contrastive
from inbatch.losses.cosent import CoSENT
from inbatch.losses.cosine_similarity import CosineSimilarity
from inbatch.losses.gist import GIST
from inbatch.losses.matryoshka import Matryoshka
from inbatch.losses.multiple_negatives import MultipleNegativesRanking
from inbatch.losses.online_contrastive import OnlineContrastive
from inbatch.losses.triplet import Triplet

__all__ = [
    "AnglE",
    "CoSENT",
    "Contrastive",
    "CosineSimilarity",
    "GIST",
    "Loss",
    "LossInput",
    "LossOutput",
    "Matryoshka",
    "MultipleNegativesRanking",
    "OnlineContrastive",
    "Published",
    "Triplet",
]
