"""Static encoders: vectors of tokens, and their mean, beside sentence-transformers' StaticEmbedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, StaticEmbedding
from tokenizers import Tokenizer

from helpers.st_oracle import assert_same
from helpers.tiny import WORDS, tiny_texts, tiny_tokenizer
from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.encoder import build_encoder, build_static_encoder
from inbatch.encoder.bag import mean_of_padded
from inbatch.encoder.static import StaticEncoder
from inbatch.encoder.static_files import UNLIMITED
from inbatch.encoder.token_vectors import principal_components, zipf_weights
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.errors import ConfigError

TEXTS = [*tiny_texts(12), "red " * 90, "an unknown word"]
PROMPTS = {"query": "red phone ", "document": "small "}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """The directory of a tokenizer."""
    tiny_tokenizer().save_pretrained(tmp_path / "words")
    return tmp_path / "words"


def assert_same_static(encoder: StaticEncoder, path: Path) -> SentenceTransformer:
    st = SentenceTransformer(str(path), device="cpu")
    assert_same(encoder.encode(TEXTS), st.encode(TEXTS))
    assert_same(encoder.encode(TEXTS, role="query"), st.encode_query(TEXTS))
    assert_same(encoder.encode(TEXTS, role="document"), st.encode_document(TEXTS))
    assert st.similarity_fn_name == encoder.similarity
    return st


@pytest.mark.parametrize("max_length", [None, 7], ids=["whole", "cut"])
@pytest.mark.parametrize(
    ("dense", "normalize"), [(None, False), ({"out_features": 8}, True)], ids=["plain", "head"]
)
def test_a_saved_encoder_is_the_same_in_sentence_transformers(
    words: Path,
    tmp_path: Path,
    dense: dict[str, Any] | None,
    normalize: bool,
    max_length: int | None,
) -> None:
    encoder = build_static_encoder(
        tokenizer=str(words),
        dimension=16,
        dense=dense,
        normalize=normalize,
        prompts=PROMPTS,
        similarity="dot",
        max_length=max_length,
    )
    encoder.save(tmp_path / "model")
    st = assert_same_static(encoder, tmp_path / "model")
    assert not torch.allclose(encoder.encode(TEXTS), encoder.encode(TEXTS, role="query"))
    again = build_encoder(str(tmp_path / "model"))
    assert isinstance(again, StaticEncoder)
    assert again.tokenizer.max_length == (max_length or UNLIMITED)
    assert torch.equal(again.encode(TEXTS), encoder.encode(TEXTS))
    # The other way round: what sentence-transformers writes anew.
    st.save_pretrained(str(tmp_path / "theirs"), create_model_card=False)
    assert torch.equal(build_encoder(str(tmp_path / "theirs")).encode(TEXTS), encoder.encode(TEXTS))


def test_the_layout_is_that_of_the_releases_that_had_it_first(words: Path, tmp_path: Path) -> None:
    build_static_encoder(tokenizer=str(words), dimension=4).save(tmp_path / "model")
    files = {str(p.relative_to(tmp_path / "model")) for p in (tmp_path / "model").rglob("*.*")}
    assert files == {
        "config_sentence_transformers.json",
        "modules.json",
        "0_StaticEmbedding/model.safetensors",
        "0_StaticEmbedding/tokenizer.json",
    }
    assert [*load_file(tmp_path / "model/0_StaticEmbedding/model.safetensors")] == [
        "embedding.weight"
    ]


def test_trained_further_from_a_model_of_sentence_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bag = StaticEmbedding(tiny_tokenizer(), embedding_dim=12)
    st = SentenceTransformer(modules=[bag, Dense(12, 6), Normalize()], device="cpu")
    st.save_pretrained(str(tmp_path / "st"), create_model_card=False)
    encoder = build_encoder(str(tmp_path / "st"))
    assert_same(encoder.encode(TEXTS), st.encode(TEXTS))
    assert encoder.dimension == 6
    assert all(p.requires_grad for p in encoder.parameters())


def test_files_of_model2vec_share_vectors_and_weigh_them(words: Path, tmp_path: Path) -> None:
    encoder = build_static_encoder(tokenizer=str(words), dimension=4)
    encoder.save(tmp_path / "model")
    size = len(encoder.embedding.weight)
    state = {
        "embeddings": torch.randn(5, 4).half(),
        "mapping": torch.arange(size) % 5,
        "weights": torch.rand(size).double(),
    }
    save_file(state, tmp_path / "model/0_StaticEmbedding/model.safetensors")
    st = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    found = build_encoder(str(tmp_path / "model")).encode(TEXTS)
    torch.testing.assert_close(found, torch.from_numpy(st.encode(TEXTS)), rtol=2e-3, atol=1e-3)


def test_the_mean_and_its_gradient_are_those_of_an_embedding_bag(words: Path) -> None:
    torch.manual_seed(0)
    encoder = build_static_encoder(tokenizer=str(words), dimension=6).double()
    texts = [*TEXTS, "", "red red red"]
    ids, _ = encoder.tokenizer(texts)
    assert ids[-2] == [], "no special tokens"
    chunk = one_chunk(ids)
    bag = torch.nn.EmbeddingBag.from_pretrained(encoder.embedding.weight.detach().clone(), False)
    flat = torch.tensor([i for n in chunk.index for i in ids[n]])
    starts = torch.tensor([0, *[len(ids[n]) for n in chunk.index]]).cumsum(0)[:-1]
    wanted = bag(flat, starts)
    found = encoder(chunk)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)
    weigh = torch.randn_like(found)
    (found * weigh).sum().backward()
    (wanted * weigh).sum().backward()
    torch.testing.assert_close(encoder.embedding.weight.grad, bag.weight.grad, rtol=0, atol=1e-14)
    padded = mean_of_padded(encoder.embedding.weight, chunk)
    torch.testing.assert_close(padded, wanted, rtol=0, atol=1e-14)
    (of_padded,) = torch.autograd.grad((padded * weigh).sum(), encoder.embedding.weight)
    torch.testing.assert_close(of_padded, bag.weight.grad, rtol=0, atol=1e-14)


def test_a_chunk_of_empty_texts_is_zero_and_has_a_gradient_of_zero(words: Path) -> None:
    encoder = build_static_encoder(tokenizer=str(words), dimension=3)
    chunk = one_chunk([[], []])
    found = encoder(chunk)
    assert found.tolist() == mean_of_padded(encoder.embedding.weight, chunk).tolist()
    assert found.tolist() == [[0.0] * 3] * 2
    found.sum().backward()
    assert encoder.embedding.weight.grad is not None
    assert not encoder.embedding.weight.grad.any()


def one_chunk(ids: list[list[int]]) -> Chunk:
    (chunk,) = make_chunks(ids, [0] * len(ids), chunk_rows=None, chunk_tokens=None, pad_id=0)
    return chunk


def test_vectors_of_a_transformer(tiny_bert: Path, tmp_path: Path) -> None:
    source = build_encoder(str(tiny_bert))
    assert isinstance(source, TransformerEncoder)
    encoder = build_static_encoder(str(tiny_bert))
    assert torch.equal(encoder.embedding.weight, source.token_table.weight)
    assert encoder.tokenizer.max_length == source.tokenizer.max_length
    alone = build_static_encoder(str(tiny_bert), vectors="alone")
    word = source.tokenizer.hf.get_vocab()["red"]
    torch.testing.assert_close(alone.embedding.weight[word], source.encode(["red"])[0])
    weighed = build_static_encoder(str(tiny_bert), weights="zipf")
    weights = zipf_weights(len(encoder.embedding.weight))
    assert (weights.diff() > 0).all()
    torch.testing.assert_close(
        weighed.embedding.weight, encoder.embedding.weight * weights[:, None]
    )
    alone.save(tmp_path / "model")
    assert_same_static(alone, tmp_path / "model")


def test_fewer_dimensions_are_those_of_most_variance(tiny_bert: Path) -> None:
    whole = build_static_encoder(str(tiny_bert)).embedding.weight.detach()
    cut = build_static_encoder(str(tiny_bert), dimension=5).embedding.weight.detach()
    centred = whole - whole.mean(0)
    _, sizes, _ = torch.linalg.svd(centred.double())
    torch.testing.assert_close(cut.double().norm(dim=0), sizes[:5], rtol=1e-5, atol=0)
    turned = principal_components(whole, 32)
    torch.testing.assert_close(turned @ turned.T, centred @ centred.T, rtol=1e-4, atol=1e-5)


def test_a_tokenizer_learned_from_texts_is_the_same_on_each_rank() -> None:
    train = {"train": {"vocab_size": 200}}
    torch.manual_seed(3)
    one = build_static_encoder(tokenizer=train, dimension=8, texts=lambda: WORDS * 2)
    torch.manual_seed(3)
    two = build_static_encoder(tokenizer=train, dimension=8, texts=lambda: WORDS * 2)
    assert torch.equal(one.encode(TEXTS), two.encode(TEXTS))


BUILT = [
    ({}, "tokenizer=null is not set"),
    ({"tokenizer": {"learn": 1}}, "neither a name nor"),
    ({"tokenizer": {"train": {}}}, "needs training texts"),
    ({"tokenizer": "words"}, "dimension=null is not a number"),
    ({"tokenizer": "words", "dimension": 4, "vectors": "inputs"}, "did you mean 'input'"),
    ({"tokenizer": "words", "dimension": 4, "weights": "idf"}, "weights='idf' is not zipf"),
    ({"model": "bert", "tokenizer": "words"}, "does not go with model="),
    ({"model": "bert", "dimension": 33}, "is not from 1 to 32"),
    ({"model": "static"}, "encoder=pretrained"),
]


@pytest.mark.parametrize(("options", "problem"), BUILT, ids=[str(n) for n in range(len(BUILT))])
def test_mistakes_are_named(
    words: Path, tiny_bert: Path, tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    build_static_encoder(tokenizer=str(words), dimension=4).save(tmp_path / "static")
    paths = {"words": words, "bert": tiny_bert, "static": tmp_path / "static"}
    named = {k: str(paths.get(v, v)) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(ConfigError, match=problem):
        build_static_encoder(**named)


LOADED = [
    {"attention": "eager"},
    {"pooling": "cls"},
    {"gradient_checkpointing": True},
    {"dtype": "bfloat16"},
    {"include_prompt": False},
    {"tokenizer": "elsewhere"},
]


@pytest.mark.parametrize("options", LOADED, ids=[next(iter(each)) for each in LOADED])
def test_options_of_transformers_are_refused(
    words: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    build_static_encoder(tokenizer=str(words), dimension=4).save(tmp_path / "model")
    with pytest.raises(ConfigError, match=f"{next(iter(options))} does not go with a Static"):
        build_encoder(str(tmp_path / "model"), **options)


def test_broken_directories_are_named(words: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    build_static_encoder(tokenizer=str(words), dimension=4).save(model)
    with pytest.raises(ConfigError, match="compile=true has nothing to compile"):
        build_encoder(str(model)).compile_backbone()
    modules = json.loads((model / "modules.json").read_text())
    more = [*modules, {**modules[0], "type": "sentence_transformers.models.CNN"}]
    (model / "modules.json").write_text(json.dumps(more))
    with pytest.raises(ConfigError, match="CNN"):
        build_encoder(str(model))
    (model / "modules.json").write_text(json.dumps(modules))
    small = {"embedding.weight": torch.zeros(3, 4)}
    save_file(small, model / "0_StaticEmbedding/model.safetensors")
    with pytest.raises(ConfigError, match="has ids up to 44, and there are 3 vectors"):
        build_encoder(str(model))
    (model / "0_StaticEmbedding/model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors"):
        build_encoder(str(model))


def test_random_weights_of_the_same_shapes(words: Path, tmp_path: Path) -> None:
    encoder = build_static_encoder(tokenizer=str(words), dimension=4)
    encoder.save(tmp_path / "model")
    again = build_encoder(str(tmp_path / "model"), pretrained=False)
    assert isinstance(again, StaticEncoder)
    assert again.embedding.weight.shape == encoder.embedding.weight.shape
    assert not torch.allclose(again.embedding.weight, encoder.embedding.weight)


def test_the_saved_tokenizer_neither_pads_nor_cuts(words: Path, tmp_path: Path) -> None:
    encoder = build_static_encoder(tokenizer=str(words), dimension=4)
    encoder.encode(TEXTS)
    encoder.save(tmp_path / "model")
    saved = Tokenizer.from_file(str(tmp_path / "model/0_StaticEmbedding/tokenizer.json"))
    assert saved.padding is None
    assert saved.truncation is None
