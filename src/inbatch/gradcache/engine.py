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
A forward or backward that runs out of memory is done again with less, see retry.py, where that is allowed.

Pass 2 is the caller's, between `embed` and `backward`, so that it reads as what it is. The engine knows
neither ranks nor losses: it receives callables. `last` marks the one backward of a
step after which gradients may be reduced over ranks. Shape letters: N texts, n texts of a chunk, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.batch.batch import Chunk
from inbatch.device.memory import retried
from inbatch.gradcache.accumulated import Accumulated
from inbatch.gradcache.retry import ChunkBackward, Embedded, Relief, embed_all, keep_fewer
from inbatch.gradcache.rng import RngState


class Engine(NamedTuple):
    """The callables of one step.

    encode: chunk -> embeddings [n, D].
    backward: scalar -> None; accumulates into the parameters.
    gradient_sync: last -> context; outside the last backward of a step gradients stay on their rank.
    measure: name -> context that measures time ("embed", "backward").
    complete: called before the last backward of the batch.
    size: batches whose gradients are averaged; this is one of them.
    relief: what a forward or backward that runs out of memory is done again with; None lets the error pass,
        as it must where ranks run their forwards together.
    accumulated: of the parameters; needed with a `relief` that does not repeat the step.
    """

    encode: Callable[[Chunk], Tensor]
    backward: Callable[[Tensor], None]
    gradient_sync: Callable[[bool], AbstractContextManager[None]]
    measure: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
    complete: Callable[[], None] = lambda: None
    size: int = 1
    relief: Relief | None = None
    accumulated: Accumulated | None = None


class Embeddings:
    """Embeddings of a batch between the passes; `backward` uses them up.

    values_ND: all texts in the batch's flat order, at least float32; a leaf for the loss to differentiate.
    exact_in: the 16-bit type that the encoder returned, which holds them exactly; None if it was another.
    The leaf is float32 all the same, so that gradients are summed in float32, over ranks too, and rounded
    once.
    """

    def __init__(self, embedded: list[Embedded], relief: Relief | None) -> None:
        self.embedded, self._relief = embedded, relief
        dtype = embedded[0].embeddings.dtype
        self.exact_in = dtype if dtype.itemsize == 2 else None
        self.values_ND = retried(partial(_assemble, embedded), self.keep_fewer).requires_grad_()
        self.embedded = [e if e.kept else e.without_embeddings() for e in self.embedded]
        self.gradient_ND: Tensor | None = None

    def keep_fewer(self) -> bool:
        """Let go half of the graphs that are held; False where none is, or ranks must hold the same."""
        return self._relief is not None and keep_fewer(self.embedded, self._relief)

    def differentiate(self, results: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Take the gradient by that of what was made of `values_ND`.

        Args:
            results: tensors that were made of `values_ND`.
            gradients: of a loss, with respect to these.
        """
        (self.gradient_ND,) = torch.autograd.grad(results, self.values_ND, gradients)


def embed(engine: Engine, chunks: Sequence[Chunk], *, num_keep: int) -> Embeddings:
    """Pass 1: embed all texts.

    Args:
        engine: the callables above.
        chunks: all texts of the batch; their `index` fields cover range(N) once. A chunk whose index is
            empty is a filler (see fillers.py): it runs through each pass without influence on the result.
        num_keep: graphs to keep, counted from the first chunk; len(chunks) means no second forward.
    """
    with engine.measure("embed"):
        embedded = embed_all(engine.encode, chunks, num_keep=num_keep, relief=engine.relief)
        return Embeddings(embedded, engine.relief)


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
    grad_ND, first = embeddings.gradient_ND, embeddings.embedded[0].rng
    after = RngState.capture(embeddings.values_ND.device)

    def surrogate(chunk: Chunk, embeddings_nD: Tensor) -> Tensor:
        return _surrogate(chunk, embeddings_nD, grad_ND) / engine.size

    def run(surrogate: Tensor, is_last: bool, reduces: bool) -> None:
        if is_last:
            engine.complete()
        with engine.gradient_sync(last and reduces):
            engine.backward(surrogate)

    chunks = ChunkBackward(
        engine.encode, surrogate, run, relief=engine.relief, accumulated=engine.accumulated
    )
    with engine.measure("backward"):
        chunks.all(embeddings.embedded, draws=not first.is_state_of(after))
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


def _surrogate(chunk: Chunk, embeddings_nD: Tensor, grad_ND: Tensor) -> Tensor:
    """A scalar whose gradient with respect to the embeddings is theirs in the loss."""
    if is_filler(chunk):
        return (embeddings_nD * 0.0).sum().to(grad_ND.dtype)
    return (embeddings_nD.to(grad_ND.dtype) * grad_ND[chunk.index]).sum()


def is_filler(chunk: Chunk) -> bool:
    """True for a chunk that only keeps ranks in step. Known from shapes alone."""
    return chunk.index.numel() == 0
