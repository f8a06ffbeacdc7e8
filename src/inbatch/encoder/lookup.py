"""One lookup of token embeddings for several chunks. Shape letters: U distinct tokens, E their width.

The backward of a lookup fills a gradient as large as the whole table, once per chunk: 45 MiB with 30,522
tokens of 384 dimensions, 730 MiB with XLM-R's. Chunks whose graphs are back-propagated together can look
up in a table of the batch's own tokens instead, so that the large table gets its gradient once. This is
for a CPU: a GPU fills the gradient quickly, and finding the distinct tokens would make the host wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def shared_lookup(embedding: nn.Embedding, token_ids: Sequence[Tensor]) -> Iterator[None]:
    """Route lookups of these tokens inside the context through one lookup in `embedding`.

    Values are the same, and so are gradients up to the order of their sums. All graphs that are made
    inside must go backward in one call.

    Args:
        embedding: the table [V, E]; a frozen one is left alone.
        token_ids: all tokens that will be looked up inside, of any shapes, on the table's device.
    """
    if not token_ids or not embedding.weight.requires_grad or not torch.is_grad_enabled():
        yield
        return
    distinct_U = torch.unique(torch.cat([ids.flatten() for ids in token_ids]))
    place_V = distinct_U.new_zeros(embedding.num_embeddings)
    place_V[distinct_U] = torch.arange(len(distinct_U), device=distinct_U.device)
    table_UE = embedding(distinct_U)

    def look_up(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        return nn.functional.embedding(place_V[arguments[0]], table_UE)

    hook = embedding.register_forward_hook(look_up)
    try:
        yield
    finally:
        hook.remove()
