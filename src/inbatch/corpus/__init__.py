"""Texts of any source -> their embeddings in a folder, over any number of ranks, and from there again.

`embed_corpus` computes what the folder lacks, `open_embeddings` maps what it holds; README.md has the layout.
"""

from inbatch.corpus.embed import EmbedSettings, embed_corpus
from inbatch.corpus.store import StoredEmbeddings, open_embeddings
from inbatch.corpus.texts import TextList, Texts

__all__ = [
    "EmbedSettings",
    "StoredEmbeddings",
    "TextList",
    "Texts",
    "embed_corpus",
    "open_embeddings",
]
