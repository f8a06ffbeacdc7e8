"""Gradient caching: one large contrastive batch in bounded memory.

The gradient of a loss L of embeddings E = f(chunks; w) splits at the embeddings::

    dL/dw = sum over chunks of (dL/dE_chunk) * (dE_chunk/dw)

so a step runs in three passes (Gao et al. 2021, https://arxiv.org/abs/2101.06983):

1. embed every chunk, without its graph unless that is to be kept; remember the random state;
2. compute the loss of all embeddings at once and its gradient with respect to them;
3. back-propagate chunk by chunk, those without a graph after a second forward that replays the same
   random state.

With every graph kept no text is embedded twice. Chunks go backward in their order whatever is kept, so that
the sum of their gradients does not depend on it: it is the same to the last bit.
A forward that runs out of memory is done again with less, see retry.py, where the engine is allowed to.

Pass 2 is the caller's, between `embed` and `backward`, so that it reads as what it is. The engine knows
neither ranks nor losses: it receives callables. `last` marks the one backward of a
step after which gradients may be reduced over ranks. Shape letters: N texts, n texts of a chunk, D dimension.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.batch.batch import Chunk
from inbatch.gradcache.retry import Embedded, OnOutOfMemory, Replay, embed_all
from inbatch.gradcache.rng import RngState


class Engine(NamedTuple):
    """The callables of one step.

    encode: chunk -> embeddings [n, D].
    backward: scalar -> None; accumulates into the parameters.
    gradient_sync: last -> context; outside the last backward of a step gradients stay on their rank.
    measure: name -> context that measures time ("embed", "backward").
    complete: called before the last backward of the batch.
    on_out_of_memory: called after a forward ran out of memory, before it is done again with less; None lets
        the error pass, as it must where ranks run their forwards together.
    """

    encode: Callable[[Chunk], Tensor]
    backward: Callable[[Tensor], None]
    gradient_sync: Callable[[bool], AbstractContextManager[None]]
    measure: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
    complete: Callable[[], None] = lambda: None
    on_out_of_memory: OnOutOfMemory | None = None


class Embeddings:
    """Embeddings of a batch between the passes; `backward` uses them up.

    values_ND: all texts in the batch's flat order, at least float32; a leaf for the loss to differentiate.
    exact_in: the 16-bit type that the encoder returned, which holds them exactly; None if it was another.
    The leaf is float32 all the same, so that gradients are summed in float32, over ranks too, and rounded
    once.
    """

    def __init__(self, embedded: list[Embedded]) -> None:
        self.values_ND = _assemble(embedded).requires_grad_()
        dtype = embedded[0].embeddings.dtype
        self.exact_in = dtype if dtype.itemsize == 2 else None
        self.embedded = [e if e.kept else e.without_embeddings() for e in embedded]
        self.gradient_ND: Tensor | None = None

    def by_column(self, num_columns: int) -> Tensor:
        """The embeddings as [C, b, D]."""
        num_texts, dimension = self.values_ND.shape
        return self.values_ND.view(num_columns, num_texts // num_columns, dimension)

    def differentiate(self, loss: Tensor) -> None:
        """Take the gradient of a loss of `values_ND`; frees the graph of the loss."""
        (self.gradient_ND,) = torch.autograd.grad(loss, self.values_ND)


def embed(engine: Engine, chunks: Sequence[Chunk], *, num_keep: int) -> Embeddings:
    """Pass 1: embed all texts.

    Args:
        engine: the callables above.
        chunks: all texts of the batch; their `index` fields cover range(N) once. A chunk whose index is
            empty is a filler (see fillers.py): it runs through each pass without influence on the result.
        num_keep: graphs to keep, counted from the first chunk; len(chunks) means no second forward.
    """
    with engine.measure("embed"):
        return Embeddings(
            embed_all(
                engine.encode, chunks, num_keep=num_keep, on_out_of_memory=engine.on_out_of_memory
            )
        )


def backward(engine: Engine, embeddings: Embeddings, *, last: bool = True) -> None:
    """Pass 3: add the gradient of the loss to the parameters, after `Embeddings.differentiate`.

    The sum equals that of ``loss(encode(everything)).backward()`` up to rounding. Random state is left as
    the loss left it, whatever was embedded again.

    Args:
        engine: the callables above.
        embeddings: of pass 1, with their gradient.
        last: whether gradients are complete after this batch (False while accumulating batches).
    """
    assert embeddings.gradient_ND is not None
    after = RngState.capture(embeddings.values_ND.device)
    with engine.measure("backward"):
        _backward_all(engine, embeddings.embedded, embeddings.gradient_ND, last=last)
    after.restore()


def _assemble(embedded: Sequence[Embedded]) -> Tensor:
    """Embeddings of all chunks in the batch's flat order, at least float32: [N, D]."""
    real = [e for e in embedded if not is_filler(e.chunk)]
    num_texts = sum(e.chunk.num_texts for e in real)
    like = embedded[0].embeddings
    dtype = torch.promote_types(like.dtype, torch.float32)
    flat = torch.empty(num_texts, like.shape[1], dtype=dtype, device=like.device)
    for e in real:
        flat[e.chunk.index] = e.embeddings.detach().to(dtype)
    return flat


def _backward_all(engine: Engine, embedded: list[Embedded], grad_ND: Tensor, *, last: bool) -> None:
    """Go backward through the chunks in their order. Only the final backward may reduce."""
    replay = Replay(engine.encode, engine.on_out_of_memory)
    waiting = deque(embedded)
    embedded.clear()  # each graph is freed when its backward is done
    while waiting:
        e = waiting.popleft()
        surrogate = _surrogate(e.chunk, e.embeddings if e.kept else replay(e), grad_ND)
        del e
        if not waiting:
            engine.complete()
        with engine.gradient_sync(last and not waiting):
            engine.backward(surrogate)
        del surrogate


def _surrogate(chunk: Chunk, embeddings_nD: Tensor, grad_ND: Tensor) -> Tensor:
    """A scalar whose gradient with respect to the embeddings is theirs in the loss."""
    if is_filler(chunk):
        return (embeddings_nD * 0.0).sum().to(grad_ND.dtype)
    return (embeddings_nD.to(grad_ND.dtype) * grad_ND[chunk.index]).sum()


def is_filler(chunk: Chunk) -> bool:
    """True for a chunk that only keeps ranks in step. Known from shapes alone."""
    return chunk.index.numel() == 0
