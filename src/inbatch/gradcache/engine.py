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
A forward or backward that runs out of memory is done again with less, see retry.py, or where all ranks take
part in it, by all of them, see shared.py.

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
from inbatch.gradcache.fillers import is_filler
from inbatch.gradcache.retry import ChunkBackward, Embedded, Relief, embed_all, keep_fewer
from inbatch.gradcache.rng import RngState
from inbatch.gradcache.shared import SharedPasses


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
    shared: sees that all ranks come to the end of the batch where they run their forwards together; None
        lets the error pass.
    """

    encode: Callable[[Chunk], Tensor]
    backward: Callable[[Tensor], None]
    gradient_sync: Callable[[bool], AbstractContextManager[None]]
    measure: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
    complete: Callable[[], None] = lambda: None
    size: int = 1
    relief: Relief | None = None
    accumulated: Accumulated | None = None
    shared: SharedPasses | None = None


class Embeddings:
    """Embeddings of a batch between the passes; `backward` uses them up.

    values_ND: all texts in the batch's flat order, at least float32; a leaf for the loss to differentiate.
    exact_in: the 16-bit type that the encoder returned, which holds them exactly; None if it was another.
    The leaf is float32 all the same, so that gradients are summed in float32, over ranks too, and rounded
    once.
    """

    def __init__(self, embedded: list[Embedded], engine: Engine, num_texts: int) -> None:
        self.embedded, self._engine = embedded, engine
        like = embedded[0].embeddings.detach()
        self.exact_in = like.dtype if like.dtype.itemsize == 2 else None
        assembled = retried(lambda: _assemble(self.embedded, num_texts, like), self.keep_fewer)
        self.values_ND = assembled.requires_grad_()
        self.embedded = [e if e.kept else e.without_embeddings() for e in self.embedded]
        self.gradient_ND: Tensor | None = None

    def keep_fewer(self) -> bool:
        """Let go of half of the graphs that are held; False where none is, or ranks must hold the same.

        Where ranks run their forwards together, of all that is held, and the batch is repeated.
        """
        relief, shared = self._engine.relief, self._engine.shared
        if shared is not None and shared.keep_fewer():
            self.embedded.clear()
            return True
        return relief is not None and keep_fewer(self.embedded, relief)

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
    compute = partial(embed_all, engine.encode, chunks, num_keep=num_keep, relief=engine.relief)
    shared, num_texts = engine.shared, sum(c.num_texts for c in chunks if not is_filler(c))
    with engine.measure("embed"):
        if shared is None:
            return Embeddings(compute(), engine, num_texts)
        shared.start(chunks, num_keep)
        embedded = shared.completed(compute) or shared.embed_fillers(engine.encode)
        return Embeddings(embedded, engine, num_texts)


def backward(
    engine: Engine,
    embeddings: Embeddings,
    *,
    last: bool = True,
    besides: Callable[[], Tensor] | None = None,
) -> None:
    """Pass 3: add the gradient of the loss to the parameters, after `Embeddings.differentiate`.

    The sum equals that of ``loss(encode(everything)).backward()`` up to rounding. Random state is left as
    the loss left it, whatever was embedded again.

    Args:
        engine: the callables above.
        embeddings: of pass 1, with their gradient.
        last: whether gradients are complete after this batch (False while accumulating batches).
        besides: makes a scalar of parameters that no embedding depends on, whose gradient is added too: in
            the last backward, where gradients are reduced. None where there are none.
    """
    assert embeddings.gradient_ND is not None
    if engine.shared is not None and not embeddings.embedded:
        embeddings.embedded = engine.shared.embed_fillers(engine.encode)
    grad_ND, first = embeddings.gradient_ND, embeddings.embedded[0].rng
    after = RngState.capture(embeddings.values_ND.device)

    def surrogate(chunk: Chunk, embeddings_nD: Tensor) -> Tensor:
        return _surrogate(chunk, embeddings_nD, grad_ND) / engine.size

    def run(surrogate: Tensor, is_last: bool, reduces: bool) -> None:
        if is_last:
            engine.complete()
            if besides is not None:
                surrogate = surrogate + besides().to(surrogate.dtype) / engine.size
        with engine.gradient_sync(last and reduces):
            engine.backward(surrogate)

    chunks = ChunkBackward(
        engine.encode, surrogate, run, relief=engine.relief, accumulated=engine.accumulated
    )

    def all_chunks() -> bool:
        chunks.all(embeddings.embedded, draws=not first.is_state_of(after))
        return True

    with engine.measure("backward"):
        if engine.shared is None:
            all_chunks()
        elif not engine.shared.completed(all_chunks):
            embeddings.embedded = engine.shared.embed_fillers(engine.encode)
            all_chunks()
    after.restore()


def _assemble(embedded: Sequence[Embedded], num_texts: int, like: Tensor) -> Tensor:
    """Embeddings of all chunks in the batch's flat order, at least float32: [N, D]; zeros without chunks."""
    real = [e for e in embedded if not is_filler(e.chunk)]
    dtype = torch.promote_types(like.dtype, torch.float32)
    make = torch.empty if real else torch.zeros
    flat = make(num_texts, like.shape[1], dtype=dtype, device=like.device)
    for e in real:
        flat[e.chunk.index] = e.embeddings.detach().to(dtype)
    return flat


def _surrogate(chunk: Chunk, embeddings_nD: Tensor, grad_ND: Tensor) -> Tensor:
    """A scalar whose gradient with respect to the embeddings is theirs in the loss."""
    if is_filler(chunk):
        return (embeddings_nD * 0.0).sum().to(grad_ND.dtype)
    return (embeddings_nD.to(grad_ND.dtype) * grad_ND[chunk.index]).sum()
