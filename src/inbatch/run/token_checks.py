"""Whether a tokenizer tells the training texts apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice

from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.run.auto_sizes import sampled_rows

LOOKED_AT = 64  # different texts


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
        texts = list(islice(dict.fromkeys(_texts(source)), LOOKED_AT))
        token_ids, _ = encoder.tokenizer(texts)
        if len(texts) > 1 and len(set(map(tuple, token_ids))) == 1:
            raise ConfigError(
                key,
                f"has a tokenizer that makes the same {len(token_ids[0])} tokens of all texts of source "
                f"{source.name!r}, such as {_start(texts[0])} and {_start(texts[1])}",
                "name a model whose tokenizer belongs to it and knows these texts, or raise max_length "
                "where they only differ further on",
                value=encoder.base_model,
            )


def _texts(source: Source) -> Iterable[str]:
    rows = sampled_rows(source)
    if source.ragged is None:
        return chain.from_iterable(source.read(rows)[0])
    found = source.ragged.read(rows)
    return chain(found.queries, found.documents)


def _start(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
