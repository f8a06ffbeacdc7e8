"""Tables, lists and numbers as an inspection shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from inbatch.console import printable
from inbatch.data.report.values import Lengths

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def heading(text: str) -> Text:
    """The name of a section."""
    return Text(printable(text), style="bold underline")


def table(*left: str, right: Sequence[str] = ()) -> Table:
    """A table without lines: columns of words, and of numbers to their right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in left:
        table.add_column(printable(name), overflow="fold")
    for name in right:
        table.add_column(name, justify="right", overflow="fold")
    return table


def cells(*texts: str) -> list[Text]:
    """Cells of a row, in which nothing is markup."""
    return [plain(text) for text in texts]


def lines(texts: Iterable[str]) -> Text:
    """Lines one below the other."""
    return Text("\n").join([plain(text) for text in texts])


def bullets(texts: Iterable[Text]) -> Table:
    """A list."""
    grid = Table.grid(padding=(0, 1))
    for text in texts:
        grid.add_row("-", text)
    return grid


def plain(text: str) -> Text:
    """A text in which nothing is markup."""
    return Text(printable(text))


def dim(text: str) -> Text:
    """A remark."""
    return Text(printable(text), style="dim")


def span(lengths: Lengths | None) -> str:
    """Median, 95th percentile and largest."""
    return "-" if lengths is None else f"{lengths.p50:,.0f} / {lengths.p95:,.0f} / {lengths.max:,}"


def size(num_bytes: float) -> str:
    """Bytes in their unit."""
    unit = 0
    while num_bytes >= 1000 and unit < len(_UNITS) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.3g} {_UNITS[unit]}"
