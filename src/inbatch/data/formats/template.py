"""Templates of columns: ``{title} {text}`` makes one text of two columns of a row."""

from __future__ import annotations

import re
from collections.abc import Mapping

_COLUMN = re.compile(r"\{([^{}]+)\}")


def template_columns(template: str) -> tuple[str, ...]:
    """Columns that a template names, each once; none for the plain name of a column."""
    return tuple(dict.fromkeys(_COLUMN.findall(template)))


def fill(template: str, record: Mapping[str, object]) -> str:
    """The text of a row: values in place of the names, nothing for null, no space at either end.

    So ``{title} {text}`` is the rule of BEIR and MTEB, ``(title + " " + text).strip()``: the text alone
    where the title is empty.

    Raises:
        KeyError: the row has no such column.
    """

    def value_of(match: re.Match[str]) -> str:
        value = record[match[1]]
        return "" if value is None else str(value)

    return _COLUMN.sub(value_of, template).strip()
