"""One large contrastive batch in bounded memory: embed, loss, gradients of the embeddings, backward."""

from inbatch.gradcache.engine import Engine, cached_backward
from inbatch.gradcache.fill import fill_chunks
from inbatch.gradcache.headroom import Headroom
from inbatch.gradcache.keep import KeepBudget

__all__ = ["Engine", "Headroom", "KeepBudget", "cached_backward", "fill_chunks"]
