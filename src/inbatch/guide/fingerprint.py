"""Describes everything that a guide's embedding depends on besides the text and its prompt.

The description holds hashes of weights and tokenizer instead of a model's name: the same model in two
places shares its embeddings, and two models of one name do not. Anything that only changes the
rounding (attention kernels, library versions, batching) is left out; the precision of the computation
and that of the stored rows are in it, so a store holds rows of one kind.
"""

from __future__ import annotations

import json
from typing import Any

from inbatch.data.hashing import hash_json
from inbatch.encoder import Encoder
from inbatch.encoder.hashes import hash_weights
from inbatch.encoder.head import layer_text
from inbatch.encoder.tokenize import TextTokenizer

FORMAT = 1  # of the files of a store

#: Keys of a transformers configuration that do not affect a frozen encoder's output.
NO_INFLUENCE = (
    *("transformers_version", "architectures", "_name_or_path", "dtype", "torch_dtype"),
    *("use_cache", "gradient_checkpointing", "id2label", "label2id"),
)
# A tokenizer without a serialised form is told from others by what it does to this.
_PROBE = "Straße, naïve café: 3,14 €/m² — テスト\tEND. don't"


def describe_guide(
    encoder: Encoder, *, store_dtype: str, compute_dtype: str
) -> dict[str, int | str | dict[str, Any] | list[str]]:
    """Everything that the rows of a store depend on, as JSON-able values.

    Args:
        encoder: the guide, on the CPU.
        store_dtype: precision of the rows.
        compute_dtype: precision of the forward.
    """
    identity = encoder.identity()
    config = identity.pop("config", {})
    return {
        "format": FORMAT,
        **identity,
        "config": {key: value for key, value in config.items() if key not in NO_INFLUENCE},
        "head": [layer_text(layer) for layer in encoder.head],
        "dimension": encoder.dimension,
        "max_length": encoder.tokenizer.max_length,
        "tokenizer": hash_tokenizer(encoder.tokenizer),
        "weights": hash_weights(encoder.state_dict().items()),
        "store_dtype": store_dtype,
        "compute_dtype": compute_dtype,
    }


def fingerprint(description: dict[str, Any]) -> str:
    """128 bits of a description, as 32 hexadecimal digits."""
    return hash_json(description)


def hash_tokenizer(tokenizer: TextTokenizer) -> str:
    """Hash of vocabulary, normalisation, splitting and special tokens."""
    hf = tokenizer.hf
    content: dict[str, Any]
    if hf.is_fast:
        content = json.loads(hf.backend_tokenizer.to_str())
        # State of the last call, not of the tokenizer; max_length is described by itself.
        content = {k: v for k, v in content.items() if k not in ("truncation", "padding")}
    else:
        content = {"class": type(hf).__name__, "vocabulary": hf.get_vocab(), "probe": _PROBE}
        content["ids"] = hf(_PROBE)["input_ids"]
    content |= {"padding_side": hf.padding_side, "truncation_side": hf.truncation_side}
    if not tokenizer.special_tokens:
        content |= {"special_tokens": False}
    return hash_json(content)
