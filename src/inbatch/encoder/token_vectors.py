"""The vectors that a static encoder starts from. Shape letters: V tokens, D and E dimensions.

Each token's vector is its row of a transformer's input embeddings, or what the whole transformer says
about the token alone (as model2vec does). Both may be brought to fewer dimensions by PCA, and scaled so that
frequent tokens weigh little in a mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inbatch.batch.chunks import make_chunks
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.errors import ConfigError

_CHUNK_TOKENS = 8192
_SIF = 1e-4
_PROBE = "a"  # tells the special tokens around a text


def input_vectors(encoder: TransformerEncoder) -> Tensor:
    """The transformer's input embeddings, float32 [V, D]."""
    return encoder.token_table.weight.detach().float().clone()


@torch.no_grad()
def alone_vectors(encoder: TransformerEncoder) -> Tensor:
    """The encoder's embedding of each token by itself, between the special tokens of a text; float32 [V, D].

    As model2vec's distillation starts (https://github.com/MinishLab/model2vec): 3 computed tokens for each
    token of the vocabulary.
    """
    hf = encoder.tokenizer.hf
    num_tokens = max(hf.get_vocab().values()) + 1
    plain, whole = (hf(_PROBE, add_special_tokens=add)["input_ids"] for add in (False, True))
    start = next(n for n in range(len(whole)) if whole[n : n + len(plain)] == plain)
    before, after = whole[:start], whole[start + len(plain) :]
    token_ids = [[*before, token, *after] for token in range(num_tokens)]
    chunks = make_chunks(
        token_ids,
        [0] * num_tokens,
        chunk_rows=None,
        chunk_tokens=_CHUNK_TOKENS,
        pad_id=encoder.tokenizer.pad_id,
        padding_side=encoder.tokenizer.padding_side,
    )
    training = encoder.training
    encoder.eval()
    try:
        vectors_VD = torch.empty(num_tokens, encoder.dimension)
        for chunk in chunks:
            vectors_VD[chunk.index] = encoder(chunk).float()
    finally:
        encoder.train(training)
    return vectors_VD


def principal_components(vectors_VD: Tensor, dimension: int) -> Tensor:
    """Coordinates along the directions of most variance, centred, [V, E]; the first vary the most.

    Computed from the covariance in float64. Each direction points to where its largest entry is positive,
    so that ranks and machines agree.

    Raises:
        ConfigError: there are not so many dimensions.
    """
    most = min(vectors_VD.shape)
    if not 1 <= dimension <= most:
        raise ConfigError(
            "dimension",
            f"is not from 1 to {most}, what the vectors have",
            "lower it",
            value=dimension,
        )
    centred_VD = vectors_VD.double() - vectors_VD.double().mean(0)
    _, directions_DD = torch.linalg.eigh(centred_VD.T @ centred_VD)
    chosen_DE = directions_DD.flip(1)[:, :dimension]
    largest_E = chosen_DE.gather(0, chosen_DE.abs().argmax(0, keepdim=True))
    return (centred_VD @ (chosen_DE * largest_E.sign())).float()


def zipf_weights(num_tokens: int) -> Tensor:
    """Weight of each token by its place in the vocabulary, as if that were its rank of frequency; [V].

    Smooth inverse frequencies a / (a + p) of probabilities p that fall as 1 / rank (Zipf's law), with
    a = 1e-4: Arora et al. 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings". Vocabularies
    of WordPiece and BPE are sorted by frequency well enough; it is what model2vec takes.
    """
    inverse_V = 1.0 / torch.arange(2, num_tokens + 2, dtype=torch.float64)
    probability_V = inverse_V / inverse_V.sum()
    return (_SIF / (_SIF + probability_V)).float()
