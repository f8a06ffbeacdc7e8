"""The encoder: chunk of tokens -> embeddings [n, D].

`resolve` finds the files, `st_read` reads what a sentence-transformers directory says, `tokenize`
and `backbone` load, `pooling` and `head` follow the backbone, `transformer` holds the parts together,
`build` is the way in from a configuration, and `st_write` the way out to a directory. `static` is an
encoder without a transformer: the mean of vectors of tokens (`static_build`, `token_vectors`).
`model` is what they have in common.

Names are imported on first use, so that `inbatch.encoder.pooling` needs torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inbatch.encoder.build import build_encoder
    from inbatch.encoder.model import Encoder
    from inbatch.encoder.static_build import build_static_encoder
    from inbatch.encoder.tokenize import TextTokenizer

__all__ = ["Encoder", "TextTokenizer", "build_encoder", "build_static_encoder"]

_HOMES = {
    "Encoder": "model",
    "TextTokenizer": "tokenize",
    "build_encoder": "build",
    "build_static_encoder": "static_build",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
