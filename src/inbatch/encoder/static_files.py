"""The files of a static encoder in a sentence-transformers directory: read and written.

The first module is a `StaticEmbedding` in a folder of its own, which holds the vectors (model.safetensors)
and the tokenizer (tokenizer.json). sentence-transformers reads the tokenizer by the tokenizers library, adds
no special tokens, and cuts texts only where the file itself says so. Shape letters: V tokens, E dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from inbatch.encoder.parts import EncoderParts
from inbatch.encoder.st_layers import WEIGHTS_FILE, read_head
from inbatch.encoder.st_read import MODULES_FILE, SavedEncoder, read_model, saved_modules
from inbatch.encoder.st_write import Module, Weights, head_modules, weights_below
from inbatch.errors import ConfigError

KIND = "StaticEmbedding"
TOKENIZER_FILE = "tokenizer.json"
UNLIMITED = 2**20  # tokens of a text where nothing limits them, more than any text has
_FOLDER = f"0_{KIND}"  # as releases wrote it that had this module first
_WEIGHT = "embedding.weight"


def is_static(directory: Path) -> bool:
    """Tell whether a directory holds a model whose first module is a StaticEmbedding.

    Raises:
        ConfigError: its modules.json cannot be read.
    """
    modules = saved_modules(directory)
    return bool(modules) and modules[0][0] == KIND


def read_static(
    directory: Path, *, weights: bool = True
) -> tuple[Tensor, PreTrainedTokenizerFast, SavedEncoder]:
    """Vectors [V, E], tokenizer and other settings of a directory for which `is_static` holds.

    Args:
        directory: the one with modules.json.
        weights: load them, else draw random ones of the same shapes.

    Raises:
        ConfigError: a module besides Dense and Normalize, a broken file, or no vectors.
    """
    (_, folder), *head = saved_modules(directory)
    kinds = [kind for kind, _ in head]
    if {*kinds} - {"Dense", "Normalize"}:
        raise ConfigError(
            str(directory / MODULES_FILE),
            f"lists the modules {[KIND, *kinds]}",
            "give a model of a StaticEmbedding, then any Dense and Normalize",
        )
    tokenizer, max_length = _read_tokenizer(folder / TOKENIZER_FILE)
    saved = SavedEncoder(
        max_length=max_length,
        head=read_head(head, weights=weights),
        **read_model(directory),
    )
    vectors_VE = _read_vectors(folder / WEIGHTS_FILE)
    return vectors_VE if weights else torch.randn(vectors_VE.shape), tokenizer, saved


def _read_tokenizer(file: Path) -> tuple[PreTrainedTokenizerFast, int | None]:
    """The tokenizer, and the tokens that it keeps of a text."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower type
        raise ConfigError(
            str(file),
            f"cannot be read by the tokenizers library ({' '.join(str(error).split())})",
            "give a complete model",
        ) from error
    limit = None if tokenizer.truncation is None else int(tokenizer.truncation["max_length"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer), limit


def _read_vectors(file: Path) -> Tensor:
    """The vector of each token id; model2vec's files have ids that share one, and weights of tokens."""
    if not file.is_file():
        raise ConfigError(
            str(file.parent),
            f"holds no {WEIGHTS_FILE}",
            "load and save the model once with sentence-transformers, which writes it",
        )
    state = load_file(file)
    if _WEIGHT in state:
        return state[_WEIGHT].float()
    if "embeddings" not in state:
        raise ConfigError(
            str(file), f"holds {sorted(state)} and no {_WEIGHT}", "give a complete model"
        )
    vectors_VE = state["embeddings"].float()
    if "mapping" in state:
        vectors_VE = vectors_VE[state["mapping"].long()]
    return vectors_VE * state["weights"].float()[:, None] if "weights" in state else vectors_VE


def static_modules(encoder: EncoderParts) -> list[Module]:
    """The modules of a static encoder, whose vectors are the weight ``embedding.weight``."""

    def write(path: Path, state: Weights) -> None:
        vectors = {_WEIGHT: weights_below(state, "embedding.")["weight"]}
        save_file(vectors, path / WEIGHTS_FILE, metadata={"format": "pt"})
        _written_tokenizer(encoder).save(str(path / TOKENIZER_FILE))

    return [Module(KIND, {}, _FOLDER, write), *head_modules(encoder.head, first=1)]


def _written_tokenizer(encoder: EncoderParts) -> Tokenizer:
    """The tokenizer with the encoder's length, and without what its last call has left behind."""
    hf: Any = encoder.tokenizer.hf
    tokenizer = Tokenizer.from_str(hf.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if encoder.tokenizer.max_length < UNLIMITED:
        tokenizer.enable_truncation(encoder.tokenizer.max_length, direction=hf.truncation_side)
    return tokenizer
