"""The tokenizer of an encoder, loaded or trained: texts -> token ids.

A prompt is put in front of each text before tokenizing. Its length in tokens is that of the prompt
on its own, less a trailing special token (SEP, EOS); pooling without the prompt leaves out that many leading
tokens. Both are sentence-transformers' rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from tokenizers.normalizers import Lowercase, Normalizer
from tokenizers.normalizers import Sequence as NormalizerSequence
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from inbatch.encoder.wordpiece import SPECIAL_TOKENS, train_vocabulary
from inbatch.errors import ConfigError, did_you_mean

_VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_TAKES_WORDPIECE = (
    "bert",
    "distilbert",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "roberta",
    "xlm-roberta",
)
_TRAIN_DEFAULTS = {"vocab_size": 8000, "lowercase": True, "min_frequency": 2}


@dataclass(frozen=True)
class TextTokenizer:
    """Tokenizes batches of texts; can be pickled.

    Args:
        hf: the transformers tokenizer.
        max_length: tokens that a text keeps, prompt and special tokens included.
        do_lower_case: lower-case in front of the tokenizer's own normalizer.
        special_tokens: add those of the tokenizer to each text, such as [CLS] and [SEP].

    Raises:
        ConfigError: `max_length` leaves no room for a token of text, or the tokenizer cannot pad.
    """

    hf: PreTrainedTokenizerBase
    max_length: int
    do_lower_case: bool = False
    special_tokens: bool = True

    def __post_init__(self) -> None:
        if self.hf.pad_token_id is None and self.special_tokens:
            raise ConfigError(
                "tokenizer", "has no padding token", "add pad_token to tokenizer_config.json"
            )
        least = 1 + (self.hf.num_special_tokens_to_add() if self.special_tokens else 0)
        if self.max_length < least:
            raise ConfigError(
                "max_length", "is too small", f"set at least {least}", value=self.max_length
            )
        if self.do_lower_case:
            _lower_case(self.hf)
        self.hf.model_max_length = self.max_length

    def __call__(self, texts: Sequence[str], prompt: str = "") -> tuple[list[list[int]], int]:
        """Return the token ids of each text with its prompt in front, and the prompt's token length.

        The ids include special tokens and are cut to `max_length`; no prompt has length 0.
        """
        if not prompt:
            return self._ids(list(texts)), 0
        *ids, prompt_ids = self._ids([*(prompt + text for text in texts), prompt])
        trailing = bool(prompt_ids) and prompt_ids[-1] in self.hf.all_special_ids
        return ids, len(prompt_ids) - trailing

    def count(self, texts: Sequence[str], prompt: str = "") -> list[int]:
        """Tokens of each text with its prompt in front, special tokens included, before truncation."""
        # `verbose` silences the remark about texts above model_max_length, which are the point here.
        encoded = self.hf(
            [prompt + text for text in texts],
            add_special_tokens=self.special_tokens,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [len(ids) for ids in encoded["input_ids"]]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.hf(
            texts,
            add_special_tokens=self.special_tokens,
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    @property
    def pad_id(self) -> int:
        """Token id of padding; any where the tokenizer has none, since masks tell what is padding."""
        return int(self.hf.pad_token_id or 0)

    @property
    def padding_side(self) -> Literal["right", "left"]:
        """The side of a text that is padded."""
        return "left" if self.hf.padding_side == "left" else "right"

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return len(self.hf)


def load_tokenizer(directory: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the transformers tokenizer of a directory.

    Raises:
        ConfigError: the directory holds no vocabulary, or one that transformers cannot read.
    """
    # Without a vocabulary transformers builds an empty tokenizer instead of failing.
    if not trust_remote_code and not any(
        (directory / name).is_file() for name in _VOCABULARY_FILES
    ):
        raise ConfigError(
            str(directory),
            f"holds no tokenizer ({_VOCABULARY_FILES[0]}, vocab.txt, ...)",
            "set encoder.tokenizer to a directory or hub name that does",
        )
    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ConfigError(
            str(directory),
            f"holds a tokenizer that cannot be read ({' '.join(str(error).split())})",
            "set encoder.tokenizer to another one",
        ) from error


def check_takes_tokenizer(model_type: str, hf: PreTrainedTokenizerBase) -> None:
    """Refuse an architecture whose models are read with a tokenizer of its own kind, not the one saved.

    Raises:
        ConfigError: a model of this kind that is saved with the tokenizer would come back with another one.
    """
    if model_type in _TAKES_WORDPIECE:
        return
    again = read_back(hf, AutoConfig.for_model(model_type))
    words = [word for word in hf.get_vocab() if word.isalnum()]
    samples = [" ".join(words[:100]), "".join(words[:20]), "a"]
    same = again.get_vocab() == hf.get_vocab() and again.pad_token_id == hf.pad_token_id
    if not same or again(samples)["input_ids"] != hf(samples)["input_ids"]:
        raise ConfigError(
            "tokenizer.train",
            f"does not go with config.model_type={model_type!r}, whose models are read with their own kind",
            "give the directory or hub name of such a tokenizer, or another model_type",
        )


def read_back(hf: PreTrainedTokenizerBase, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer that comes back where one is saved beside a transformer's configuration."""
    with TemporaryDirectory() as folder:
        hf.save_pretrained(folder)
        config.save_pretrained(folder)
        again: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return again


def train_wordpiece(texts: Iterable[str], options: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Learn a WordPiece tokenizer from texts; the same texts give the same tokenizer.

    Args:
        texts: read once.
        options: vocab_size (8000; an upper bound), lowercase (true), min_frequency (2: occurrences
            that a piece must have).

    Raises:
        ConfigError: an unknown key, a size below one, or no text.
    """
    unknown = sorted(set(options) - set(_TRAIN_DEFAULTS))
    if unknown:
        raise ConfigError(
            f"tokenizer.train.{unknown[0]}",
            "is not a valid key of tokenizer.train",
            did_you_mean(unknown[0], _TRAIN_DEFAULTS) or f"use one of {', '.join(_TRAIN_DEFAULTS)}",
        )
    given = {**_TRAIN_DEFAULTS, **options}
    for key in ("vocab_size", "min_frequency"):
        if not isinstance(given[key], int) or given[key] < 1:
            raise ConfigError(
                f"tokenizer.train.{key}",
                "is not a whole number of at least 1",
                "set one",
                value=given[key],
            )
    vocabulary = train_vocabulary(texts, **given)
    if len(vocabulary) <= len(SPECIAL_TOKENS):
        raise ConfigError(
            "tokenizer.train", "has learned no token", "train on texts that are not empty"
        )
    return BertTokenizer(vocab=vocabulary, do_lower_case=given["lowercase"], strip_accents=False)


def _lower_case(hf: PreTrainedTokenizerBase) -> None:
    if not hf.is_fast:
        raise ConfigError(
            "do_lower_case",
            f"needs a tokenizer of the tokenizers library, not {type(hf).__name__}",
            "lower-case the texts instead",
            value=True,
        )
    backend = hf.backend_tokenizer
    steps = _steps(backend.normalizer)
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = NormalizerSequence([Lowercase(), *steps])


def _steps(normalizer: Normalizer | None) -> list[Normalizer]:
    if normalizer is None:
        return []
    if isinstance(normalizer, NormalizerSequence):
        return [normalizer[i] for i in range(len(normalizer))]
    return [normalizer]
