"""Let a tokenizer end every text with its eos token, and be saved so.

Tokenizers of base language models add none, so that the last token of a text, which is pooled, is any word.
The step of the tokenizers library that adds special tokens is changed, so that truncation keeps room for one
more, and whatever loads tokenizer.json does the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers.processors import PostProcessor, TemplateProcessing
from tokenizers.processors import Sequence as Steps
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from inbatch.encoder.tokenize import read_back
from inbatch.errors import ConfigError

# Steps that another one may follow, or that take a token.
_EXTENDED = ("ByteLevel", "TemplateProcessing")
_BARE: dict[str, Any] = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}


def add_end_token(hf: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Make a tokenizer end texts with its eos token, unless it does so already.

    Args:
        hf: changed in place.
        config: of the transformer that it is saved with.

    Raises:
        ConfigError: it has no eos token, is not of the tokenizers library, adds special tokens in a way that
            takes no further one, or would come back from its files without it.
    """
    if hf.eos_token is None:
        raise _impossible(
            "the tokenizer has no eos token", "set eos_token in tokenizer_config.json"
        )
    if ends_texts(hf):
        return
    if not hf.is_fast:
        kind = type(hf).__name__
        raise _impossible(f"{kind} is not of the tokenizers library", "give another tokenizer")
    backend = hf.backend_tokenizer
    state = _state(backend.post_processor)
    backend.post_processor = _step(with_end(state, hf.eos_token, hf.eos_token_id))
    if read_back(hf, config)("a")["input_ids"] != hf("a")["input_ids"]:
        raise _impossible(
            f"{type(hf).__name__} of {config.model_type} models comes back without it",
            "give another tokenizer",
        )


def ends_texts(hf: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer ends texts with its eos token."""
    ids: list[int] = hf("a")["input_ids"]
    return ids[-1:] == [hf.eos_token_id]


def with_end(state: Mapping[str, Any] | None, token: str, token_id: int) -> dict[str, Any]:
    """The step that adds special tokens, as JSON, with one more at the end of a text or of a pair.

    Raises:
        ConfigError: it is of a kind that takes none.
    """
    steps = [] if state is None else state.get("processors", [state])
    for step in steps:
        if step["type"] not in _EXTENDED:
            raise _impossible(
                f"the tokenizer adds special tokens by {step['type']}", "give another tokenizer"
            )
    template = _BARE
    if steps and steps[-1]["type"] == "TemplateProcessing":
        *steps, template = steps
    special = {"id": token, "ids": [token_id], "tokens": [token]}
    ended = {
        **template,
        **{
            key: [*template[key], {"SpecialToken": {"id": token, "type_id": type_id}}]
            for type_id, key in enumerate(("single", "pair"))
        },
        "special_tokens": {**template["special_tokens"], token: special},
    }
    return {"type": "Sequence", "processors": [*steps, ended]} if steps else ended


def _state(step: PostProcessor | None) -> dict[str, Any] | None:
    return None if step is None else json.loads(step.__getstate__())


def _step(state: Mapping[str, Any]) -> PostProcessor:
    step = Steps([]) if state["type"] == "Sequence" else TemplateProcessing()
    step.__setstate__(json.dumps(state).encode())
    return step


def _impossible(why: str, fix: str) -> ConfigError:
    return ConfigError("end_token", f"cannot be added, since {why}", fix, value=True)
