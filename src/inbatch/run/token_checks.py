"""Whether a tokenizer tells the training texts apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.export.markdown import shorten
from inbatch.run.auto_sizes import sampled_rows

LOOKED_AT = 32  # rows of a source


def check_tokens(encoder: Encoder, sources: Sequence[Source], *, key: str) -> None:
    """Check that an encoder's tokenizer does not make the same tokens of all texts of a source.

    So does one that knows none of their words, as that of another model or another language, and then all
    embeddings are the same: nothing fails, and nothing is learned.

    Args:
        encoder: with the tokenizer.
        sources: of the run.
        key: of the encoder's model, for the message.

    Raises:
        ConfigError: it does.
    """
    for source in sources:
        texts = list(dict.fromkeys(texts_of(source, sampled_rows(source, LOOKED_AT))))
        token_ids, _ = encoder.tokenizer(texts)
        if len(texts) > 1 and len(set(map(tuple, token_ids))) == 1:
            raise ConfigError(
                key,
                f"has a tokenizer that makes the same {len(token_ids[0])} tokens of all texts of source "
                f"{source.name!r}, such as {shorten(texts[0], 40)!r} and {shorten(texts[1], 40)!r}",
                "name a model whose tokenizer belongs to it and knows these texts, or raise max_length "
                "where they only differ further on",
                value=encoder.base_model,
            )


def texts_of(source: Source, rows: np.ndarray) -> Iterable[str]:
    """All texts of the rows with these numbers, column by column."""
    if source.ragged is None:
        return chain.from_iterable(source.read(rows)[0])
    found = source.ragged.read(rows)
    return chain(found.queries, found.documents)
