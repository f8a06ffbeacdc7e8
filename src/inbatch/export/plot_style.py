"""How all plots of a run look: colours, figures, axes and files.

Figures are made without pyplot, so that no window, backend or global state is touched. Colours are
those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from inbatch.files import writing

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
GREY, INK = "#8A8F98", "#2B2F36"

STYLE: dict[Any, Any] = {
    "font.size": 11.0,
    "axes.titlesize": 13.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelsize": 11.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E5E8",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # names of sources may hold dollar signs
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
    "savefig.dpi": 150,
}
_LOG_RANGE = 100.0  # largest to smallest value from which an axis is logarithmic


def new_figure(panels: int, *, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, filled row by row; a single column shares its width."""
    rows = math.ceil(panels / columns)
    width, height = (8.0, 4.5) if panels == 1 else (max(8.0, 4.6 * columns), 3.2 * rows)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]


def finish(axes: Axes, title: str, label: str, *, log: bool = True) -> None:
    """Title, labels and scale; a legend where there are several curves."""
    axes.set_title(title)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    first, last = axes.dataLim.intervalx
    if first == last:
        axes.set_xlim(first - 1, last + 1)
    lowest, highest = axes.dataLim.intervaly
    if log and lowest > 0 and highest / lowest > _LOG_RANGE:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    _, labels = axes.get_legend_handles_labels()
    if len([label for label in labels if label]) > 1:
        axes.legend(loc="best")


def save(figure: Figure, path: Path) -> None:
    """Write a figure made under `STYLE`."""
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the numbers are still right.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        with writing(path):
            figure.savefig(path)
