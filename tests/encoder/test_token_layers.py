"""Layers of sentence-transformers between a transformer and its pooling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import CNN, Pooling, WeightedLayerPooling
from torch import Tensor, nn

from helpers.st_oracle import TEXTS, assert_same
from inbatch.batch.chunks import make_chunks
from inbatch.encoder import build_encoder, token_layers
from inbatch.errors import ConfigError

BETWEEN: dict[str, Callable[[], list[nn.Module]]] = {
    "cnn": lambda: [CNN(32, 8, [1, 3, 5]), Pooling(24, "mean")],
    "cnn, of dense tokens, twice": lambda: [
        Dense(32, 16, module_input_name="token_embeddings"),
        CNN(16, 8, [3]),
        CNN(8, 4, [5, 7]),
        Pooling(8, ("max", "lasttoken")),
    ],
    "mean of layers": lambda: [WeightedLayerPooling(32, 2, 1), Pooling(32, "mean"), Normalize()],
    "cnn of all layers": lambda: [
        WeightedLayerPooling(32, 2, 0),
        CNN(32, 8, [3]),
        Pooling(8, "cls"),
        Dense(8, 4),
    ],
}


def write(path: Path, transformer: Path, modules: list[nn.Module], **config: Any) -> None:
    """Save a model of sentence-transformers whose modules have random weights."""
    torch.manual_seed(3)
    for module in modules:
        for parameter in module.parameters():
            nn.init.uniform_(parameter, 0.1, 1.0)
    first = Transformer(str(transformer), max_seq_length=32, config_kwargs=config)
    SentenceTransformer(modules=[first, *modules], device="cpu").save(str(path))


def saved(name: str, transformer: Path, path: Path) -> Path:
    write(path, transformer, BETWEEN[name](), output_hidden_states="layers" in name)
    return path


def alone(path: Path) -> Tensor:
    """Embeddings that sentence-transformers gives texts one at a time."""
    st = SentenceTransformer(str(path), device="cpu")
    return st.encode(TEXTS, batch_size=1, convert_to_tensor=True)


@pytest.mark.parametrize("name", BETWEEN)
def test_a_text_has_the_embedding_that_sentence_transformers_gives_it_alone(
    name: str, tiny_bert: Path, tmp_path: Path
) -> None:
    theirs = saved(name, tiny_bert, tmp_path / "theirs")
    encoder = build_encoder(str(theirs))
    assert_same(encoder.encode(TEXTS), alone(theirs))
    encoder.save(tmp_path / "ours")
    assert_same(encoder.encode(TEXTS), alone(tmp_path / "ours"))
    assert_same(build_encoder(str(tmp_path / "ours")).encode(TEXTS), alone(theirs))
    kinds = [type(module).__name__ for module in BETWEEN[name]()]
    assert all(f": {kind}(" in encoder.describe()["architecture"] for kind in kinds[:-2])


@pytest.mark.parametrize("name", BETWEEN)
def test_without_padding_values_and_gradients_are_those_with_it(
    name: str, tiny_bert: Path, tmp_path: Path
) -> None:
    path = saved(name, tiny_bert, tmp_path)
    found = []
    for attention in ("sdpa", "varlen"):
        encoder = build_encoder(str(path), attention=attention).double().eval()
        ids, _ = encoder.tokenizer(["red", "blue small camera cable", "case"])
        (chunk,) = make_chunks(ids, [0] * 3, chunk_rows=None, chunk_tokens=None, pad_id=0)
        output = encoder(chunk)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        gradients = {key: value.grad for key, value in encoder.token_head.named_parameters()}  # type: ignore[union-attr]
        assert all(value is not None and value.abs().sum() > 0 for value in gradients.values())
        found.append((output.detach(), gradients))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_convolution_does_not_see_padding(side: str) -> None:
    torch.manual_seed(0)
    cnn = token_layers.CNN(4, 3, [1, 5])
    tokens, padding = torch.randn(1, 3, 4), torch.randn(1, 2, 4)
    parts = [tokens, padding] if side == "right" else [padding, tokens]
    mask = torch.cat([torch.full(part.shape[:2], int(part is tokens)) for part in parts], dim=1)
    output = cnn(torch.cat(parts, dim=1), mask)[mask.bool()]
    torch.testing.assert_close(output, cnn(tokens, torch.ones(1, 3))[0])


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        ([CNN(32, 8, [2]), Pooling(8, "cls")], r"kernel_sizes=\[2\], where each has to be odd"),
        ([CNN(32, 8, [3], [2]), Pooling(8, "cls")], r"sets stride_sizes=\[2\]"),
        ([WeightedLayerPooling(32, 2, 1), Pooling(32)], "config.json does not set output_hidden"),
        ([WeightedLayerPooling(32, 3, 1), Pooling(32)], "of 3 layers and a transformer of 2"),
        (
            [CNN(32, 32, [1]), WeightedLayerPooling(32, 2, 1), Pooling(32)],
            r"'CNN', 'WeightedLayerPooling', 'Pooling'\]",
        ),
    ],
)  # fmt: skip
def test_what_is_not_computed_alike_is_refused(
    modules: list[nn.Module], problem: str, tiny_bert: Path, tmp_path: Path
) -> None:
    write(tmp_path, tiny_bert, modules)
    with pytest.raises(ConfigError, match=problem):
        build_encoder(str(tmp_path))


def test_settings_by_the_names_of_earlier_releases(tiny_bert: Path, tmp_path: Path) -> None:
    path = saved("cnn of all layers", tiny_bert, tmp_path / "model")
    before = build_encoder(str(path)).encode(TEXTS)
    for file in (path / "1_WeightedLayerPooling/config.json", path / "2_CNN/cnn_config.json"):
        text = file.read_text().replace("embedding_dimension", "word_embedding_dimension")
        file.write_text(text)
    assert torch.equal(build_encoder(str(path)).encode(TEXTS), before)
