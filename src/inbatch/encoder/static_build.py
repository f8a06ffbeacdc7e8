"""Build a static encoder from a configuration: the target of conf/encoder/static*.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from inbatch.encoder.build import TextStream, build_encoder
from inbatch.encoder.resolve import resolve_directory
from inbatch.encoder.st_read import SavedEncoder
from inbatch.encoder.static import StaticEncoder
from inbatch.encoder.static_load import make_static
from inbatch.encoder.token_vectors import (
    alone_vectors,
    input_vectors,
    principal_components,
    zipf_weights,
)
from inbatch.encoder.tokenize import load_tokenizer, train_wordpiece
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.errors import ConfigError, did_you_mean

VECTORS: dict[str, Callable[[TransformerEncoder], Tensor]] = {
    "input": input_vectors,
    "alone": alone_vectors,
}
_WEIGHTS = ("zipf",)


def build_static_encoder(
    model: str | None = None,
    *,
    tokenizer: str | Mapping[str, Any] | None = None,
    dimension: int | None = None,
    vectors: str = "input",
    weights: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_length: int | None = None,
    dense: Mapping[str, Any] | Literal[False] | None = None,
    normalize: bool | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    similarity: str | None = None,
    truncate_dim: int | None = None,
    freeze: Sequence[str] = (),
    texts: TextStream | None = None,
) -> StaticEncoder:
    """Build an encoder that averages vectors of tokens: from a transformer's (`model`), or random ones.

    Its learning rate is some hundred times a transformer's: try 1e-3 to 1e-1. Order of words does not count.
    A model that has a StaticEmbedding already is loaded, and trained further, by ``encoder.model``.

    Args:
        model: a transformer whose tokenizer and vectors are taken: a directory, a hub name, or
            ``pkg://package/directory``.
        tokenizer: for random vectors: a directory, a hub name, or ``{train: {vocab_size: 8000}}``, learned
            from `texts`.
        dimension: of the vectors. With `model` fewer than it has come by PCA; None leaves them as they are.
        vectors: with `model`: input takes the rows of its token embeddings, alone what it makes of each token
            by itself, as model2vec does (three tokens through the transformer for each of the vocabulary).
        weights: zipf scales each vector by its token's place in the vocabulary, so that frequent tokens weigh
            less in a mean (see `zipf_weights`); they are part of the vectors from there on.
        revision: branch, tag or commit of a hub name.
        trust_remote_code: run Python code that the model brings along.
        max_length: tokens a text keeps; None for the transformer's, or no limit for random vectors.
        dense: ``{out_features: 512, activation: Tanh, bias: true}`` after the mean.
        normalize: scale embeddings to length one, after all other layers.
        prompts: texts to put in front by name, such as ``{query: "query: "}``; a transformer's own are not
            taken.
        default_prompt_name: name of the prompt for texts without a role.
        similarity: cosine, dot, euclidean or manhattan, saved with the model; None for the transformer's.
        truncate_dim: leading dimensions that evaluation and users of the saved model keep.
        freeze: regular expressions; parameters with a match in their name do not train.
        texts: gives the training texts, for ``tokenizer: {train: ...}``.

    Raises:
        ConfigError: under the argument that is wrong.
    """
    _check_choice("vectors", vectors, tuple(VECTORS))
    if weights is not None:
        _check_choice("weights", weights, _WEIGHTS)
    if model is None:
        hf = _tokenizer(tokenizer, texts, trust_remote_code=trust_remote_code)
        saved, found_VE = SavedEncoder(), _random(hf, dimension)
    else:
        _check_with_model(model, tokenizer)
        source = build_encoder(model, revision=revision, trust_remote_code=trust_remote_code)
        if not isinstance(source, TransformerEncoder):
            raise ConfigError(
                "model",
                "holds a StaticEmbedding already",
                "set encoder=pretrained encoder.model=MODEL, which trains it further",
                value=model,
            )
        hf, found_VE = source.tokenizer.hf, VECTORS[vectors](source)
        found_VE = found_VE[: max(hf.get_vocab().values()) + 1]
        if dimension is not None and dimension != found_VE.shape[1]:
            found_VE = principal_components(found_VE, dimension)
        saved = SavedEncoder(
            max_length=source.tokenizer.max_length,
            do_lower_case=source.tokenizer.do_lower_case,
            similarity=source.similarity,
        )
    if not hf.is_fast:
        raise ConfigError(
            "tokenizer",
            f"({type(hf).__name__}) is not one of the tokenizers library, which a StaticEmbedding needs",
            "give another model or tokenizer",
        )
    if weights is not None:
        found_VE = found_VE * zipf_weights(len(found_VE))[:, None]
    return make_static(
        found_VE,
        hf,
        saved,
        base_model=model,
        max_length=max_length,
        dense=dense,
        normalize=normalize,
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity=similarity,
        truncate_dim=truncate_dim,
        freeze=freeze,
    )


def _check_with_model(model: str, tokenizer: object) -> None:
    if tokenizer is not None:
        raise ConfigError(
            "tokenizer",
            f"does not go with model={model!r}, whose vectors are those of its own tokens",
            "leave one of them out",
            value=tokenizer,
        )


def _random(hf: PreTrainedTokenizerBase, dimension: int | None) -> Tensor:
    if dimension is None or dimension < 1:
        raise ConfigError(
            "dimension",
            "is not a number of at least 1, which random vectors need",
            "set one, such as 256, or give a model whose vectors to take",
            value=dimension,
        )
    return torch.randn(max(hf.get_vocab().values()) + 1, dimension)


def _tokenizer(
    given: str | Mapping[str, Any] | None, texts: TextStream | None, *, trust_remote_code: bool
) -> PreTrainedTokenizerBase:
    """The tokenizer of random vectors."""
    if isinstance(given, str):
        directory = resolve_directory(given, field="tokenizer", weights=False)
        return load_tokenizer(directory, trust_remote_code=trust_remote_code)
    if given is None or [*given] != ["train"]:
        raise ConfigError(
            "tokenizer",
            "is not set" if given is None else "is neither a name nor {train: {...}}",
            "give a directory, a hub name or {train: {vocab_size: 8000}}, or a model whose vectors to take",
            value=given,
        )
    if texts is None:
        raise ConfigError(
            "tokenizer.train",
            "needs training texts",
            "pass texts= to build_static_encoder, or name a tokenizer",
        )
    return train_wordpiece(texts(), given["train"] or {})


def _check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(
            field,
            f"is not {' or '.join(choices)}",
            did_you_mean(value, choices) or "set one of them",
            value=value,
        )
