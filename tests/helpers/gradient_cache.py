"""The three passes of the gradient cache around any loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inbatch.batch.batch import Chunk
from inbatch.gradcache import Engine, backward, embed
from inbatch.losses.base import LossOutput


def cached_backward(
    engine: Engine, loss: Callable[[Tensor], LossOutput], chunks: Sequence[Chunk], *, num_keep: int
) -> LossOutput:
    """Accumulate the gradient of a loss of all embeddings [N, D]; return it detached."""
    embeddings = embed(engine, chunks, num_keep=num_keep)
    values_ND = embeddings.values_ND.detach().requires_grad_()
    output = loss(values_ND)
    embeddings.differentiate([embeddings.values_ND], torch.autograd.grad(output.loss, values_ND))
    backward(engine, embeddings)
    return LossOutput(output.loss.detach(), output.metrics)
