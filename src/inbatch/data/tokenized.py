"""Texts or stored tokens of a batch -> token ids of its texts, behind their prompts.

Shape letters: C text columns, B local rows, N = C * B texts; of rows with lists T texts, E distinct ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np

from inbatch.batch.documents import Documents
from inbatch.data.copies import by_role, distinct_texts, number_prompts, role_of_texts
from inbatch.data.read import ReadRows, StoredTokens


class Tokenize(Protocol):
    """Turns texts into token ids; `encoder.TextTokenizer` is one."""

    @property
    def pad_id(self) -> int:
        """Token that fills a row."""

    @property
    def padding_side(self) -> Literal["right", "left"]:
        """Where the padding goes."""

    @property
    def max_length(self) -> int:
        """Most tokens of a text."""

    def __call__(self, texts: Sequence[str], prompt: str = "") -> tuple[list[list[int]], int]:
        """Token ids of each text behind the prompt, and the prompt's number of tokens."""


class Prompted(NamedTuple):
    """A tokenizer, and the prompts of text columns."""

    tokenizer: Tokenize
    prompts: Sequence[str]  # [C]


class TextTokens(NamedTuple):
    """Tokens of texts, in their order."""

    ids: Sequence[Sequence[int]]
    prompt_lengths: list[int]


class BatchTokens(NamedTuple):
    """The tokens of a batch's texts, or, of rows with lists, of the distinct ones among them."""

    of_encoder: TextTokens
    of_guide: TextTokens | None
    copies: np.ndarray | None = None  # see `Batch.copies`


def tokens_of(read: ReadRows, encoder: Prompted, guide: Prompted | None) -> BatchTokens:
    """The tokens of rows that have been read, for the encoder and for a guide."""
    if read.documents is not None:
        return _tokens_of_lists(read, read.documents, encoder, guide)
    texts, guide_tokens = read.texts or [], None
    if guide is not None:
        guide_tokens = tokenize_columns(texts, guide.prompts, tokenizer=guide.tokenizer)
    if read.tokens is not None:
        return BatchTokens(flat_tokens(read.tokens, read.num_rows), guide_tokens)
    tokens = tokenize_columns(texts, encoder.prompts, tokenizer=encoder.tokenizer)
    return BatchTokens(tokens, guide_tokens)


def _tokens_of_lists(
    read: ReadRows, documents: Documents, encoder: Prompted, guide: Prompted | None
) -> BatchTokens:
    roles_T = role_of_texts(documents)
    both = [each.prompts for each in (encoder, guide) if each is not None]
    places_E, copies = distinct_texts(read.text_ids, number_prompts(*both)[roles_T])
    roles_E = roles_T[places_E]
    flat = [text for column in read.texts or [] for text in column]
    texts = [flat[place] for place in places_E.tolist()] if flat else []
    guide_tokens = None if guide is None else _tokenize_distinct(texts, roles_E, guide)
    if read.tokens is None:
        return BatchTokens(_tokenize_distinct(texts, roles_E, encoder), guide_tokens, copies)
    stored = [ids for column in read.tokens.ids for ids in column]
    ids_E = [cast(Sequence[int], stored[place]) for place in places_E.tolist()]
    lengths_E = np.array(by_role(read.tokens.prompt_lengths))[roles_E]
    return BatchTokens(TextTokens(ids_E, lengths_E.tolist()), guide_tokens, copies)


def tokenize_columns(
    columns: Sequence[Sequence[str]], prompts: Sequence[str], *, tokenizer: Tokenize
) -> TextTokens:
    """Token ids and prompt lengths of N = C * B texts in the flat order of a batch.

    Columns with the same prompt share one call of the tokenizer, and a text that comes several
    times behind a prompt is tokenized once.
    """
    encoded: dict[str, tuple[dict[str, list[int]], int]] = {}
    for prompt in dict.fromkeys(prompts):
        same = [texts for texts, other in zip(columns, prompts) if other == prompt]
        distinct = list(dict.fromkeys(text for texts in same for text in texts))
        ids, length = tokenizer(distinct, prompt) if distinct else ([], 0)
        encoded[prompt] = (dict(zip(distinct, ids)), length)
    token_ids: list[list[int]] = []
    prompt_lengths: list[int] = []
    for texts, prompt in zip(columns, prompts):
        ids_by_text, length = encoded[prompt]
        token_ids.extend(ids_by_text[text] for text in texts)
        prompt_lengths.extend([length] * len(texts))
    return TextTokens(token_ids, prompt_lengths)


def flat_tokens(tokens: StoredTokens, num_rows: int) -> TextTokens:
    """The same as `tokenize_columns`, from stored tokens."""
    token_ids = [cast(Sequence[int], ids) for column in tokens.ids for ids in column]
    return TextTokens(token_ids, np.repeat(tokens.prompt_lengths, num_rows).tolist())


def _tokenize_distinct(texts: Sequence[str], roles_E: np.ndarray, encoder: Prompted) -> TextTokens:
    """Tokens of texts that differ from each other, or in their prompts."""
    token_ids: list[Sequence[int]] = [[]] * len(texts)
    lengths_E = np.zeros(len(texts), dtype=np.int64)
    of_roles = by_role(encoder.prompts)
    for prompt in dict.fromkeys(of_roles):
        roles = [role for role, other in enumerate(of_roles) if other == prompt]
        places = np.flatnonzero(np.isin(roles_E, roles)).tolist()
        if places:
            found, length = encoder.tokenizer([texts[place] for place in places], prompt)
            lengths_E[places] = length
            for place, ids in zip(places, found):
                token_ids[place] = ids
    return TextTokens(token_ids, lengths_E.tolist())
