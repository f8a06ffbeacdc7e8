"""Texts of passages that have several fields, such as a title and a text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from inbatch.data.formats.base import BadRecordError, shown
from inbatch.data.formats.template import fill, template_columns
from inbatch.errors import ConfigError

_fields = cache(template_columns)  # the same for millions of passages
TITLE_AND_TEXT = "{title} {text}"  # the rule of BEIR and of tevatron


def check_template(template: str) -> None:
    """Check that a template names a field.

    Raises:
        ConfigError: It does not.
    """
    if not template_columns(template):
        fix = f"write fields in braces, as '{TITLE_AND_TEXT}'"
        raise ConfigError("template", "names no field", fix, value=template)


def passage_text(template: str, passage: Mapping[str, object], what: str) -> str:
    """The text of a passage; a field that it does not have is empty, as where there is no title.

    Raises:
        BadRecordError: A field is neither a text nor null, or none is there.
    """
    values = {name: passage.get(name) for name in _fields(template)}
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise BadRecordError(f"has {shown(value)} as {name} of {what}", "give a text")
    text = fill(template, values)
    if not text and not values.keys() & passage.keys():
        known = ", ".join(passage) or "none"
        raise BadRecordError(
            f"has {what} with the fields {known}", f"set a template of them, as '{template}' is one"
        )
    return text
