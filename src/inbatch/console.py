"""Terminal and log of a run: the table before step 1, one line while it trains, the summary at the end.

On a terminal this is rich's rendering; elsewhere (a log file, SLURM) plain lines without control
characters, so that they can be searched. `record` writes the same plain lines to the log of the job
(`train.log`), whatever the console is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column, Table
from rich.text import Text

LABEL_WIDTH = len("checkpoint")
WIDTH_OF_BAR = 124  # columns that a terminal needs for the bar beside the text
BAR_WIDTH = 16

TableRows = Mapping[str, Mapping[str, str]]


def make_console() -> Console:
    """A console on standard output, whichever that is when it prints."""
    # A notebook would show each line as a block of HTML.
    return Console(highlight=False, force_jupyter=False)


def record(line: str) -> None:
    """Write a line to the log files of this process, such as the one that Hydra opens for a job.

    A log that cannot be written ends nothing; what is written next then says why.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            text = printable(line)
            entry = logging.LogRecord("inbatch", logging.INFO, __file__, 0, text, None, None)
            with suppress(OSError):
                handler.handle(entry)


def stop_recording(folder: Path) -> None:
    """Write no more to log files inside `folder`, which belongs to another run."""
    root, own = logging.getLogger(), os.path.abspath(folder)
    for handler in list(root.handlers):
        if isinstance(handler, logging.FileHandler) and own in map(
            str, Path(handler.baseFilename).parents
        ):
            root.removeHandler(handler)
            handler.close()


def run_table(rows: TableRows, *, console: Console | None = None) -> None:
    """Print the table of a run: {section: {name: value}}."""
    console = console or make_console()
    lines = [f"{section}.{n}: {v}" for section, values in rows.items() for n, v in values.items()]
    if _plain(lines, console):
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for column in ("section", "name", "value"):
        table.add_column(column, overflow="fold", style="bold" if column == "section" else "")
    for section, values in rows.items():
        for position, (name, value) in enumerate(values.items()):
            table.add_row(
                *(Text(printable(t)) for t in (section if position == 0 else "", name, value))
            )
    console.print(table)


def metrics_table(
    before: Mapping[str, float], after: Mapping[str, float], *, console: Console | None = None
) -> None:
    """Print metrics of the untrained model, if there are any, beside those of the exported one."""
    if not after:
        return
    header = ("metric", "before", "after") if before else ("metric", "after")
    rows = [
        (name, *((_metric(before.get(name)),) if before else ()), _metric(value))
        for name, value in after.items()
    ]
    show_table(header, rows, console=console)


def show_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, console: Console | None = None
) -> None:
    """Print rows of a name and values under a header."""
    console = console or make_console()
    cells = [header, *rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    lines = [
        "  ".join(
            f"{cell:>{max(width, 6)}}" if place else f"{cell:<{width}}"
            for place, (cell, width) in enumerate(zip(row, widths))
        )
        for row in cells
    ]
    if _plain(lines, console):
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(header):
        table.add_column(column, overflow="fold", justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def _metric(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def summary_panel(
    facts: Mapping[str, str], paths: Mapping[str, str], *, console: Console | None = None
) -> None:
    """Print facts about a finished run, and the paths of its results."""
    console = console or make_console()
    lines = {**facts, **paths}
    if _plain([f"{name}: {value}" for name, value in lines.items()], console):
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in lines.items():
        grid.add_row(Text(name), Text(printable(value)))
    console.print(Panel(grid, title="done", title_align="left", expand=False))


def _plain(lines: Sequence[str], console: Console) -> bool:
    """Record lines, and print them if the console is not a terminal; returns whether that is so."""
    for line in lines:
        if console.is_terminal:
            record(line)
        else:
            print_plain(line, console=console)
    return not console.is_terminal


def print_plain(line: str, *, console: Console) -> None:
    """Print and record a line as it is: no markup, no wrapping, control characters escaped."""
    record(line)
    console.print(printable(line), markup=False, emoji=False, soft_wrap=True)


class Display(Protocol):
    """Shows the state of training."""

    moves: bool  # a new text replaces the one before, so that it may come often

    def show(self, label: str, forms: Sequence[str], *, share: float) -> None:
        """Show the state of the run, of which `share` is done; `forms` say it in full, then ever shorter."""

    def wait(self, label: str) -> None:
        """Show the name of a pause."""

    def note(self, text: str) -> None:
        """Print a line that stays."""

    def close(self) -> None:
        """Give the terminal back."""


class PlainLines:
    """A line for each `show`; waiting shows nothing, its result is a `note`."""

    moves = False

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, label: str, forms: Sequence[str], *, share: float) -> None:
        """Print the label and the full form."""
        self.note(f"{label}  {forms[0]}")

    def wait(self, label: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Print a line."""
        print_plain(text, console=self._console)

    def close(self) -> None:
        """Nothing is held."""


class LiveLine:
    """One line of a terminal, redrawn by each `show`; a narrow one has no bar and the longest form that fits.

    Draws from the caller's thread only, so that forked data workers inherit no lock.
    """

    moves = True

    def __init__(self, console: Console) -> None:
        self._with_bar = console.width >= WIDTH_OF_BAR
        label = Column(no_wrap=True, min_width=LABEL_WIDTH if self._with_bar else None)
        bar = [BarColumn(bar_width=BAR_WIDTH)] if self._with_bar else []
        self._progress = RichProgress(
            TextColumn("{task.description}", markup=False, table_column=label),
            *bar,
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=1.0, text="")
        self._forms: Sequence[str] = ("",)
        self._progress.start()

    def show(self, label: str, forms: Sequence[str], *, share: float) -> None:
        """Redraw the line."""
        self._forms = [printable(form) for form in forms]
        self._progress.update(self._task, completed=share)
        self._draw(label)

    def wait(self, label: str) -> None:
        """Redraw the line with another label."""
        self._draw(label)

    def _draw(self, label: str) -> None:
        before = max(len(label), LABEL_WIDTH) + BAR_WIDTH + 2 if self._with_bar else len(label) + 1
        room = self._progress.console.width - before
        text = next((form for form in self._forms if len(form) <= room), self._forms[-1])
        self._progress.update(self._task, description=label, text=text)
        self._progress.refresh()

    def note(self, text: str) -> None:
        """Print above the line."""
        print_plain(text, console=self._progress.console)

    def close(self) -> None:
        """Leave the line as it is."""
        self._progress.stop()


def make_display(console: Console) -> Display:
    """One redrawn line on a terminal, plain lines elsewhere."""
    return LiveLine(console) if console.is_terminal else PlainLines(console)


def printable(text: str) -> str:
    """Escape characters that are not printable, so that a value stays on its line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def duration(seconds: float) -> str:
    """As h:mm:ss, with days where there are some: ``1d 2:03:04``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{f'{days}d ' if days else ''}{hour}:{minute:02}:{second:02}"


def quantity(value: float) -> str:
    """Three digits or more: ``0.123``, ``12.3``, ``1,234``."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
