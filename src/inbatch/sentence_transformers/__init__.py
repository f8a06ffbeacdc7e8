"""Losses for the trainer of sentence-transformers, under its names and with its arguments.

One import changes, and nothing else::

    from inbatch.sentence_transformers import CachedGISTEmbedLoss

    loss = CachedGISTEmbedLoss(model, guide, mini_batch_size=32)
    trainer = SentenceTransformerTrainer(model=model, args=args, train_dataset=train_dataset, loss=loss)

Scores are streamed, so that no matrix of the batch's size is held; texts are sorted by length into chunks;
what fits in memory is embedded once; a guide embeds each text once. See README.md here.
"""

from inbatch.sentence_transformers.losses import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
    GISTEmbedLoss,
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
)

__all__ = [
    "CachedGISTEmbedLoss",
    "CachedMultipleNegativesRankingLoss",
    "CachedMultipleNegativesSymmetricRankingLoss",
    "GISTEmbedLoss",
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
]
