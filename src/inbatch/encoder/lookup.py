"""One gradient of the token table for all chunks of a batch. Shape letters: U distinct tokens, E their width.

The backward of a lookup fills a gradient as large as the whole table, once per chunk: 45 MiB with 30,522
tokens of 384 dimensions, 730 MiB with XLM-R's. Here the chunks of a batch add up their gradients in a table
of the batch's own tokens, and the large table gets its gradient once, in the last backward. This is for a
CPU: a GPU fills the gradient quickly, and finding the distinct tokens would make the host wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Values beyond float32 keep their type; below it, sums of many tokens would lose digits.
_LEAST = torch.float32


@contextmanager
def shared_lookup(
    embedding: nn.Embedding,
    token_ids: Sequence[Tensor],
    *,
    added: Callable[[Tensor], None] = lambda table: None,
) -> Iterator[Callable[[], None]]:
    """Add up the gradients of lookups that are made inside the context; the table gets them in the end.

    Values are the same, and so are gradients up to the order of their sums. Forwards and backwards of the
    batch happen inside, in any order, each forward with gradient followed by its backward.

    Args:
        embedding: the table [V, E]; a frozen one is left alone.
        token_ids: all tokens that will be looked up inside, of any shapes, on the table's device.
        added: called with the table when the gradient of a lookup has been added up, but for the last.

    Yields:
        A function to call before the last backward.
    """
    if not token_ids or not embedding.weight.requires_grad or not torch.is_grad_enabled():
        yield lambda: None
        return
    shared = _Shared(embedding, token_ids, added)

    def look_up(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return output
        found: Tensor = _LookUp.apply(embedding.weight, arguments[0], output.detach(), shared)
        return found

    hook = embedding.register_forward_hook(look_up)
    try:
        yield shared.complete
    finally:
        hook.remove()


@final
class _Shared:
    """The sum of the gradients up to now, for the distinct tokens."""

    def __init__(
        self,
        embedding: nn.Embedding,
        token_ids: Sequence[Tensor],
        added: Callable[[Tensor], None],
    ) -> None:
        weight = embedding.weight
        self._added = partial(added, weight)
        self._distinct_U = torch.unique(torch.cat([ids.flatten() for ids in token_ids]))
        self._place_V = self._distinct_U.new_zeros(embedding.num_embeddings)
        self._place_V[self._distinct_U] = torch.arange(len(self._distinct_U), device=weight.device)
        self._padding = -1 if embedding.padding_idx is None else embedding.padding_idx
        self._size = embedding.num_embeddings
        dtype = torch.promote_types(weight.dtype, _LEAST)
        self._sum_UE = weight.new_zeros(len(self._distinct_U), weight.shape[1], dtype=dtype)
        self._is_last = False

    def complete(self) -> None:
        """The next backward is the last one."""
        self._is_last = True

    def add(self, ids: Tensor, gradient: Tensor) -> Tensor | None:
        """Add the gradient of a lookup; in the last backward return that of the whole table [V, E]."""
        self._sum_UE += torch.ops.aten.embedding_dense_backward(
            gradient, self._place_V[ids], len(self._distinct_U), -1, False
        )
        if not self._is_last:
            self._added()
            return None
        whole: Tensor = torch.ops.aten.embedding_dense_backward(
            self._sum_UE.to(gradient.dtype), self._distinct_U, self._size, self._padding, False
        )
        return whole


class _LookUp(torch.autograd.Function):
    """A lookup whose gradient goes to `_Shared`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, found: Tensor, shared: _Shared) -> Tensor:
        """What has been looked up."""
        ctx.save_for_backward(ids)
        ctx.shared = shared
        return found.view_as(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        """Nothing for the table until the last backward."""
        (ids,) = ctx.saved_tensors
        return ctx.shared.add(ids, gradient), None, None, None
