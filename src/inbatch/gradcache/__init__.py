"""One large contrastive batch in bounded memory: embed, loss, gradients of the embeddings, backward."""

from inbatch.gradcache.accumulated import Accumulated
from inbatch.gradcache.engine import Embeddings, Engine, backward, embed
from inbatch.gradcache.fillers import fill_chunks, is_filler
from inbatch.gradcache.keep import KeepBudget
from inbatch.gradcache.out_of_memory import OutOfMemoryHandler
from inbatch.gradcache.shared import Collectives, SharedPasses

__all__ = [
    "Accumulated",
    "Collectives",
    "Embeddings",
    "Engine",
    "KeepBudget",
    "OutOfMemoryHandler",
    "SharedPasses",
    "backward",
    "embed",
    "fill_chunks",
    "is_filler",
]
