"""Values as cards and `repr` write them: Python, JSON, and calls of classes, without running anything."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from inbatch.migration.facts import Call

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_CALL = re.compile(r"([A-Za-z_][\w.]*)\s*\(")
_MODULE = re.compile(r"\(([\w-]+)\):\s*(?=[A-Za-z_])")


def literal(text: str) -> Any:
    """The value of a text of Python or JSON; a class with arguments as a `Call`, other texts as they are."""
    text = text.strip().rstrip(",").strip()
    for read in (ast.literal_eval, json.loads):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    if text[:1] == "{" and text[-1:] == "}":
        return mapping(text)
    return call(text) or text


def mapping(text: str) -> dict[str, Any]:
    """``{key: value, ...}`` whose values need not be literals: a loss's guide is a whole model, say."""
    found = {}
    for part in split(text.strip()[1:-1]):
        key, colon, value = _halves(part)
        if colon:
            found[str(literal(key))] = literal(value)
    return found


def call(text: str) -> Call | None:
    """``Name(1, key=2)`` or the `repr` of a model with its modules, which are the arguments then."""
    match = _CALL.match(text)
    if match is None:
        return None
    end = closing(text, match.end() - 1)
    if text[end + 1 :].strip():
        return None
    inside = text[match.end() : end]
    name = match[1].rpartition(".")[2]
    if _MODULE.search(inside) and not re.match(r"\s*[{'\"]", inside):
        return Call(name, tuple(modules(inside)))
    args: list[Any] = []
    options: dict[str, Any] = {}
    for part in split(inside):
        key = re.match(r"\s*([A-Za-z_]\w*)\s*=(?!=)", part)
        if key:
            options[key[1]] = literal(part[key.end() :])
        elif part.strip():
            args.append(literal(part))
    return Call(name, tuple(args), options)


def modules(text: str) -> Iterator[Call]:
    """The modules of a `repr`: ``(0): Transformer({...}) with Transformer model: BertModel (1): ...``.

    What stands in a module's braces are its options; an architecture behind it joins them.
    """
    place = 0
    while match := _MODULE.search(text, place):
        head = _CALL.match(text, match.end())
        if head is None:
            place = match.end()
            continue
        end = closing(text, head.end() - 1)
        inside = text[head.end() : end].strip()
        name = head[1].rpartition(".")[2]
        behind = re.match(r"\s*with Transformer model:\s*([\w.]+)", text[end + 1 :])
        options: dict[str, Any] = {}
        args: tuple[Any, ...] = ()
        if inside.startswith("{"):
            options = mapping(inside[: closing(inside, 0) + 1])
        elif _MODULE.search(inside):
            args = tuple(modules(inside))
        elif inside:
            whole = call(f"{name}({inside})")
            options = dict(whole.options) if whole else {}
        if behind:
            options["architecture"] = behind[1]
        yield Call(name, args, options)
        place = end + 1


def split(text: str) -> Iterator[str]:
    """The parts between commas that are outside of brackets and quotes."""
    start = place = 0
    while place < len(text):
        if text[place] in _CLOSING:
            place = closing(text, place)
        elif text[place] in "'\"":
            place = _end_of_quote(text, place)
        elif text[place] == ",":
            yield text[start:place]
            start = place + 1
        place += 1
    if text[start:].strip():
        yield text[start:]


def closing(text: str, place: int) -> int:
    """Where the bracket at a place is closed; the end of the text where nothing closes it."""
    depth = 0
    while place < len(text):
        if text[place] in "'\"":
            place = _end_of_quote(text, place)
        elif text[place] in _CLOSING:
            depth += 1
        elif text[place] in _CLOSING.values():
            depth -= 1
            if depth == 0:
                return place
        place += 1
    return len(text)


def _end_of_quote(text: str, place: int) -> int:
    """Where a quote ends; its own place where it is an apostrophe that nothing closes."""
    quote, at = text[place], place + 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == quote:
            return at
        at += 1
    return place


def _halves(part: str) -> tuple[str, str, str]:
    """Key and value around the first colon outside of quotes."""
    place = 0
    while place < len(part):
        if part[place] in "'\"":
            place = _end_of_quote(part, place)
        elif part[place] == ":":
            return part[:place], ":", part[place + 1 :]
        place += 1
    return part, "", ""
