"""Text as Markdown that says exactly that text: escaping, code, tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_SPECIAL = re.compile(r"[\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}


def clean(text: str) -> str:
    """Without control characters and halves of surrogate pairs, which no file can hold."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the last an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def inline(text: str) -> str:
    """Text for one line, in a table too: HTML, Markdown and pipes are shown, not obeyed."""
    escaped = _SPECIAL.sub(r"\\\g<0>", " ".join(clean(text).split()))
    return re.sub(r"[&<>|]", lambda match: _ENTITIES[match[0]], escaped)


def code_cell(text: str) -> str:
    """Text in a fixed-width font inside a table; lines stay lines."""
    lines = clean(text).strip("\n").split("\n")
    return f"<code>{'<br>'.join(inline(line) for line in lines)}</code>"


def code_span(text: str) -> str:
    """Text between backticks, more of them than it holds."""
    text = " ".join(clean(text).split())
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def fenced(text: str, language: str = "", *, indent: str = "") -> str:
    """A code block, whose fence is longer than any in the text."""
    fence = "`" * max(3, _longest_run(text) + 1)
    lines = [f"{fence}{language}", *clean(text).split("\n"), fence]
    return "\n".join(indent + line if line else line for line in lines)


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, align: str = ":-", indent: str = ""
) -> str:
    """A table of cells that are Markdown already, padded so that its source can be read too."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    left, right = align[0] == ":", align[-1] == ":"
    rule = [":" * left + "-" * (width + 2 - left - right) + ":" * right for width in widths]
    lines = [_row(header, widths), f"|{'|'.join(rule)}|", *(_row(row, widths) for row in rows)]
    return "\n".join(indent + line for line in lines)


def number(value: float | int | None) -> str:
    """Four decimals, or four digits where those would show nothing."""
    if value is None:
        return "-"
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3e}"


def join(words: Sequence[str]) -> str:
    """One, two, and three."""
    if len(words) < 3:
        return " and ".join(words)
    return ", ".join(words[:-1]) + f", and {words[-1]}"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)
