"""Losses: pure functions of embeddings. README.md says which to take for which data."""

from inbatch.losses.angle import AnglE
from inbatch.losses.base import Loss, LossInput, LossOutput, LossParameter, Published
from inbatch.losses.batch_triplets import (
    BatchAllTriplet,
    BatchHardSoftMarginTriplet,
    BatchHardTriplet,
    BatchSemiHardTriplet,
)
from inbatch.losses.contrastive import Contrastive
from inbatch.losses.cosent import CoSENT
from inbatch.losses.cosine_similarity import CosineSimilarity
from inbatch.losses.distill_kl import DistillKL
from inbatch.losses.embedding_cosine import EmbeddingCosine
from inbatch.losses.embedding_mse import EmbeddingMSE
from inbatch.losses.gist import GIST
from inbatch.losses.global_orthogonal import GlobalOrthogonalRegularization
from inbatch.losses.in_batch_kl import InBatchKL
from inbatch.losses.margin_mse import MarginMSE
from inbatch.losses.matryoshka import Matryoshka
from inbatch.losses.multiple_negatives import MultipleNegativesRanking
from inbatch.losses.online_contrastive import OnlineContrastive
from inbatch.losses.similarity_mse import SimilarityMSE
from inbatch.losses.triplet import Triplet
from inbatch.losses.weighted_sum import WeightedSum

__all__ = [
    "AnglE",
    "BatchAllTriplet",
    "BatchHardSoftMarginTriplet",
    "BatchHardTriplet",
    "BatchSemiHardTriplet",
    "CoSENT",
    "Contrastive",
    "CosineSimilarity",
    "DistillKL",
    "EmbeddingCosine",
    "EmbeddingMSE",
    "GIST",
    "GlobalOrthogonalRegularization",
    "InBatchKL",
    "Loss",
    "LossInput",
    "LossOutput",
    "LossParameter",
    "MarginMSE",
    "Matryoshka",
    "MultipleNegativesRanking",
    "OnlineContrastive",
    "Published",
    "SimilarityMSE",
    "Triplet",
    "WeightedSum",
]
