"""Differences between models and a first one, with their intervals, as a PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl

from inbatch.export.markdown import shorten
from inbatch.export.plot_style import BLUE, GREY, STYLE, new_figure, save

PANELS = 12
_COLUMNS = 3
_NAME_CHARACTERS = 28


class Difference(NamedTuple):
    """Of one model to the first, and the ends of its interval."""

    model: str
    value: float
    low: float
    high: float


def plot_differences(found: Mapping[str, Sequence[Difference]], first: str, path: Path) -> None:
    """Draw a panel for each of the first PANELS metrics; blue where the interval leaves 0 out.

    Args:
        found: {metric: differences}.
        first: name of the model that they are to.
        path: of the file.
    """
    shown = dict(list(found.items())[:PANELS])
    with mpl.rc_context(STYLE):
        figure, panels = new_figure(len(shown), columns=min(_COLUMNS, len(shown)))
        for axes, (metric, differences) in zip(panels, shown.items()):
            axes.axvline(0.0, color=GREY, linewidth=1.0)
            for place, each in enumerate(differences):
                colour = BLUE if each.low > 0 or each.high < 0 else GREY
                axes.plot([each.low, each.high], [place, place], color=colour)
                axes.plot([each.value], [place], "o", color=colour)
            names = [shorten(each.model, _NAME_CHARACTERS) for each in differences]
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_title(metric)
            axes.set_xlabel(f"difference to {shorten(first, _NAME_CHARACTERS)}")
        save(figure, path)
