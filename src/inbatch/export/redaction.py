"""Values as a card may print them: without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "<redacted>"

_SECRET_KEY = re.compile(
    r"secret|passw(or)?d|passphrase|credential|(api|access|private|secret)[_-]?key|token(?!iz)",
    re.IGNORECASE,
)
_TOKEN_COUNT = re.compile(r"tokens", re.IGNORECASE)  # chunk_tokens: 8192, or auto
_SECRET_TEXT = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[opsu]_[A-Za-z0-9]{16,}|\bAKIA[A-Z0-9]{12,}"
    r"|(?<=://)[^\s/@]+:[^\s/@]+(?=@)"  # user:password@ of an address
)


def redact(value: Any, key: str = "") -> Any:
    """A copy of nested plain values in which secrets are replaced.

    A value is secret where a key above it names one (password, api_key, hub_token), and part of a
    text where it looks like one. Nothing, true and false, and counts of tokens are kept.
    """
    if isinstance(value, Mapping):
        return {name: redact(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, key) for item in value]
    if _is_secret(key, value):
        return REDACTED
    return _SECRET_TEXT.sub(REDACTED, value) if isinstance(value, str) else value


def holds_secret(text: str) -> bool:
    """Tell whether a part of a text looks like a secret."""
    return _SECRET_TEXT.search(text) is not None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _is_secret(key: str, value: Any) -> bool:
    if value is None or isinstance(value, bool) or not _SECRET_KEY.search(key):
        return False
    is_count = isinstance(value, int | float) or value == "auto"
    return not (is_count and _TOKEN_COUNT.search(key))
