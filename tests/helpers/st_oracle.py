"""Texts, and what it means that two models give the same embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from helpers.tiny import tiny_texts
from inbatch.encoder import Encoder

TEXTS = [*tiny_texts(12), "red " * 40, ""]


def assert_same(got: Tensor, want: Any) -> None:
    """Equal up to rounding, and not trivially so."""
    want = torch.as_tensor(want)
    assert got.shape == want.shape
    assert got.std() > 1e-2, "the embeddings are all alike, so the comparison says nothing"
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert (1 - torch.cosine_similarity(got, want)).abs().max() < 1e-6


def assert_same_model(encoder: Encoder, path: Path) -> None:
    """`SentenceTransformer(path)` gives the embeddings of `encoder`, for every role."""
    st = SentenceTransformer(str(path), device="cpu")
    assert_same(encoder.encode(TEXTS), st.encode(TEXTS))
    assert_same(encoder.encode(TEXTS, role="query"), st.encode_query(TEXTS))
    assert_same(encoder.encode(TEXTS, role="document"), st.encode_document(TEXTS))
    assert st.similarity_fn_name == encoder.similarity
    assert st.max_seq_length == encoder.tokenizer.max_length
