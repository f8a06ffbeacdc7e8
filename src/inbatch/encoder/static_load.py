"""Load a static encoder from a sentence-transformers directory, to embed with it or to train it further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from inbatch.encoder.options import freeze_parameters, given, make_head
from inbatch.encoder.st_read import SavedEncoder
from inbatch.encoder.static import StaticEncoder
from inbatch.encoder.static_files import UNLIMITED, read_static
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError


def load_static(
    directory: Path,
    *,
    base_model: str,
    pretrained: bool,
    of_transformers: Mapping[str, bool],
    **options: Any,
) -> StaticEncoder:
    """The encoder of a directory for which `static_files.is_static` holds.

    Args:
        directory: the one with modules.json.
        base_model: how the user named it.
        pretrained: load weights, else draw random ones of the same shapes.
        of_transformers: options that only a transformer has, and whether they are set.
        options: of `make_static`.

    Raises:
        ConfigError: such an option is set, or a file cannot be used.
    """
    for name, is_set in of_transformers.items():
        if is_set:
            raise ConfigError(
                name,
                "does not go with a StaticEmbedding, which has no transformer",
                f"leave it out, or give another model than {base_model!r}",
            )
    vectors_VE, hf, saved = read_static(directory, weights=pretrained)
    return make_static(vectors_VE, hf, saved, base_model=base_model, **options)


def make_static(
    vectors_VE: Any,
    hf: Any,
    saved: SavedEncoder,
    *,
    base_model: str | None,
    max_length: int | None = None,
    dense: Mapping[str, Any] | Literal[False] | None = None,
    normalize: bool | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    similarity: str | None = None,
    truncate_dim: int | None = None,
    freeze: Sequence[str] = (),
) -> StaticEncoder:
    """An encoder of vectors and a tokenizer, with what the options change of the saved settings.

    Raises:
        ConfigError: under the option that is wrong.
    """
    length = given(max_length, saved.max_length, UNLIMITED)
    encoder = StaticEncoder(
        vectors_VE,
        TextTokenizer(hf, length, saved.do_lower_case, special_tokens=False),
        head=make_head(saved, dense, normalize, vectors_VE.shape[1]),
        prompts={**saved.prompts, **(prompts or {})},
        default_prompt_name=given(default_prompt_name, saved.default_prompt_name),
        similarity=given(similarity, saved.similarity, "cosine"),
        truncate_dim=given(truncate_dim, saved.truncate_dim),
        base_model=base_model,
    )
    freeze_parameters(encoder, freeze)
    return encoder
