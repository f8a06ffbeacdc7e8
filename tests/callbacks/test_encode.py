"""Embedding over ranks: texts of any length, equally many chunks, and fillers that are there already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from helpers.distributed import bare_trainer, run
from helpers.tiny import tiny_texts
from inbatch.batch.batch import Chunk
from inbatch.callbacks.encode import ShardedEncode, place_of
from inbatch.encoder import Encoder, build_encoder
from inbatch.gradcache import fill_chunks
from inbatch.gradcache.fillers import filler_chunk


class Embeds(LightningModule):
    """Embeds texts before it trains."""

    def __init__(self, encoder: Encoder, texts: list[str], chunk_tokens: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder = encoder.train()  # transformers loads in eval mode, of which Lightning warns
        self.texts = texts
        self.chunk_tokens = chunk_tokens
        self.embeddings: Tensor

    def on_train_start(self) -> None:
        encode = ShardedEncode(place_of(self.trainer), self.encoder, chunk_tokens=self.chunk_tokens)
        assert encode.device == self.device
        self.embeddings = encode(self.texts, role=None)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """The encoder is not trained."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def embed(rank: int, world_size: int, path: Path, texts: list[str], chunk_tokens: int) -> Any:
    """The embeddings of all texts, as a rank gets them."""
    module = Embeds(build_encoder(str(path)), texts, chunk_tokens)
    trainer = bare_trainer(world_size, max_epochs=1)
    trainer.fit(module, DataLoader(list(torch.zeros(world_size, 1)), batch_size=1))
    return module.embeddings.numpy()


@pytest.mark.parametrize("num_texts", [5, 1, 0])
def test_a_text_longer_than_a_chunk_is_embedded(tiny_bert: Path, num_texts: int) -> None:
    # The longest is that of rank 0, and longer than a chunk of tokens; rank 1 has short ones or none.
    texts = [" ".join(["red"] * 40), *tiny_texts(4, max_words=3)][:num_texts]
    expected = build_encoder(str(tiny_bert)).encode(texts)
    for found in run(embed, 2, tiny_bert, texts, 8, timeout_s=60):
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


class Transfers(TorchFunctionMode):
    """Instead of a GPU: notes what is pinned and what is sent, each with the device it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned: list[str] = []
        self.sent: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.pin_memory, Tensor.to):
            with torch._C.DisableTorchFunction():
                (self.pinned if func is Tensor.pin_memory else self.sent).append(
                    args[0].device.type
                )
            return args[0]
        return func(*args, **(kwargs or {}))


def test_only_tensors_of_the_cpu_are_pinned() -> None:
    on_cpu, elsewhere = filler_chunk(torch.device("cpu")), filler_chunk(torch.device("meta"))
    with Transfers() as transfers:
        on_cpu.to("cuda")
        elsewhere.to(torch.device("cuda", 0))
    assert transfers.pinned == ["cpu"] * 4
    assert transfers.sent == ["cpu"] * 4 + ["meta"] * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fillers_on_a_gpu_stay_there() -> None:
    device = torch.device("cuda", 0)
    chunks: list[Chunk] = fill_chunks([filler_chunk(torch.device("cpu"))], 3, device)
    for chunk in chunks:
        assert chunk.to(device).input_ids.device == device
    assert chunks[1].to(device).input_ids.data_ptr() == chunks[1].input_ids.data_ptr()
