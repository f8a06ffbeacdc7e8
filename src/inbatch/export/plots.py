"""Curves of a run as PNG files, drawn from the rows of its `metrics.jsonl`.

`plot_run` asks each function below for a figure; one without its series draws none, and its file
does not appear. Figures are made without pyplot, so that no window, backend or global state is
touched. Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from inbatch.export.markdown import number
from inbatch.export.metrics_log import Row, Series, by_step, names, series
from inbatch.export.smoothing import smooth
from inbatch.files import writing

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
Draw = Callable[[Sequence[Row]], Figure | None]
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
_SMOOTHING = 0.025  # of the drawn points, the span that one smoothed point sees
_LOG_RANGE = 100.0  # largest to smallest value from which an axis is logarithmic
_MINIMISED = ("loss", "mse")
_UNRANKED = ("threshold",)


def plot_run(
    rows: Sequence[Row], out_dir: str | Path, *, best_steps: Mapping[str, int] | None = None
) -> list[Path]:
    """Draw what the rows hold.

    Args:
        rows: of `read_metrics`.
        out_dir: is made where it is missing; files of earlier calls are overwritten.
        best_steps: by metric of the evaluation, where the saved model stands; other metrics are
            starred at the first of their best values.

    Returns:
        The files written: loss, learning_rate, gradient_norm, throughput, evaluation, similarity.
    """
    out_dir = Path(out_dir)
    rows = by_step(rows)
    paths = []
    plots: dict[str, Draw] = {**_PLOTS, "evaluation": partial(_evaluation, best_steps=best_steps)}
    for name, draw in plots.items():
        with mpl.rc_context(STYLE):
            figure = draw(rows)
            if figure is None:
                continue
            with writing(out_dir):
                out_dir.mkdir(parents=True, exist_ok=True)
            paths.append(out_dir / f"{name}.png")
            save(figure, paths[-1])
    return paths


def _loss(rows: Sequence[Row]) -> Figure | None:
    sources = sorted(names(rows, "train/loss/"))
    if not names(rows, "train/loss"):
        return None
    figure, (axes,) = _figure(1)
    if len(sources) > 1:
        for name, colour in zip(sources, cycle(PALETTE)):
            _raw_and_smooth(axes, series(rows, name), colour, name.removeprefix("train/loss/"))
        _line(axes, _smoothed(series(rows, "train/loss")), INK, "all sources", linestyle="--")
    else:
        _raw_and_smooth(axes, series(rows, "train/loss"), BLUE, "training loss")
    _finish(axes, "Training loss", "loss")
    return figure


def _learning_rate(rows: Sequence[Row]) -> Figure | None:
    found = series(rows, "train/lr")
    if not found.steps:
        return None
    figure, (axes,) = _figure(1)
    _line(axes, found, BLUE, "")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    _finish(axes, "Learning rate", "learning rate", log=False)
    return figure


def _gradient_norm(rows: Sequence[Row]) -> Figure | None:
    found = series(rows, "train/gradient_norm")
    if not found.steps:
        return None
    figure, (axes,) = _figure(1)
    _raw_and_smooth(axes, found, BLUE, "gradient norm")
    _finish(axes, "Gradient norm before clipping", "L2 norm")
    return figure


def _throughput(rows: Sequence[Row]) -> Figure | None:
    wanted = {
        "perf/samples_per_s": ("Throughput, all processes", "samples / s", BLUE),
        "perf/tokens_per_s": ("Throughput, all processes", "tokens / s", ORANGE),
    }
    found = {name: series(rows, name) for name in wanted if series(rows, name).steps}
    if not found:
        return None
    figure, all_axes = _figure(len(found))
    for axes, (name, values) in zip(all_axes, found.items(), strict=True):
        title, label, colour = wanted[name]
        _raw_and_smooth(axes, values, colour, "")
        axes.set_ylim(bottom=0, top=1.1 * max(values.values) or 1.0)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        _finish(axes, title, label, log=False)
    return figure


def _evaluation(
    rows: Sequence[Row], *, best_steps: Mapping[str, int] | None = None
) -> Figure | None:
    found = names(rows, "eval/")
    if not found:
        return None
    columns = min(3, math.ceil(math.sqrt(len(found))))
    figure, all_axes = _figure(len(found), columns=columns)
    for place, (axes, name) in enumerate(zip(all_axes, found, strict=True)):
        key = name.removeprefix("eval/")
        _evaluation_curve(axes, series(rows, name), key, best_step=(best_steps or {}).get(key))
        axes.set_ylabel("value" if place % columns == 0 else "")
    figure.suptitle("Evaluation (star: best, dotted line: first)", fontsize=13, fontweight="bold")
    return figure


def _similarity(rows: Sequence[Row]) -> Figure | None:
    positive = series(rows, "train/positive_similarity")
    negative = series(rows, "train/hardest_negative_similarity")
    filtered = series(rows, "train/filtered_share")
    drawn = [part for part in (positive.steps or negative.steps, filtered.steps) if part]
    if not drawn:
        return None
    figure, all_axes = _figure(len(drawn))
    if positive.steps or negative.steps:
        _raw_and_smooth(all_axes[0], positive, BLUE, "positive")
        _raw_and_smooth(all_axes[0], negative, RED, "hardest negative")
        _finish(all_axes[0], "Similarity of a query to its texts", "mean similarity", log=False)
    if filtered.steps:
        percent = Series(filtered.steps, [100.0 * value for value in filtered.values])
        _raw_and_smooth(all_axes[-1], percent, PURPLE, "")
        all_axes[-1].set_ylim(bottom=0)
        _finish(all_axes[-1], "Negatives that the guide filters", "% of negatives", log=False)
    return figure


_PLOTS: dict[str, Draw] = {
    "loss": _loss,
    "learning_rate": _learning_rate,
    "gradient_norm": _gradient_norm,
    "throughput": _throughput,
    "evaluation": _evaluation,
    "similarity": _similarity,
}


def _evaluation_curve(
    axes: Axes, found: Series, name: str, *, best_step: int | None = None
) -> None:
    """One metric, its best value marked and its first value as a line to compare with."""
    axes.plot(found.steps, found.values, color=BLUE, marker="o", markersize=4, zorder=3)
    if len(found.values) > 1:
        axes.axhline(found.values[0], color=GREY, linewidth=1.2, linestyle=":", zorder=2)
    if not any(word in name for word in _UNRANKED):
        choose = min if name.endswith(_MINIMISED) and "negative" not in name else max
        best = found.values.index(choose(found.values))
        if best_step in found.steps:
            best = found.steps.index(best_step)
        axes.plot(
            found.steps[best], found.values[best], marker="*", markersize=15, color=ORANGE, zorder=4
        )
        axes.annotate(
            number(found.values[best]),
            (found.steps[best], found.values[best]),
            xytext=(0, 9 if choose is max else -18),
            textcoords="offset points",
            ha="center",
            fontweight="bold",
        )
    axes.margins(x=0.1, y=0.25)
    _finish(axes, name, "value", log=False)
    axes.set_title(name, fontsize=11)


def _figure(panels: int, *, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, filled row by row; a single column shares its width."""
    rows = math.ceil(panels / columns)
    width, height = (8.0, 4.5) if panels == 1 else (max(8.0, 4.6 * columns), 3.2 * rows)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]


def _smoothed(found: Series) -> Series:
    return Series(found.steps, smooth(found.values, span=_SMOOTHING * len(found.values)))


def _raw_and_smooth(axes: Axes, found: Series, colour: str, label: str) -> None:
    """A pale line of what was logged under a line that shows where it goes."""
    axes.plot(found.steps, found.values, color=colour, alpha=0.28, linewidth=1.0)
    _line(axes, _smoothed(found), colour, label)


def _line(axes: Axes, found: Series, colour: str, label: str, *, linestyle: str = "-") -> None:
    if found.steps:
        marker = "o" if len(found.steps) == 1 else ""
        shown = f" {label}" if label.startswith("_") else label  # a legend skips such names
        axes.plot(
            found.steps, found.values, color=colour, label=shown, linestyle=linestyle, marker=marker
        )


def _finish(axes: Axes, title: str, label: str, *, log: bool = True) -> None:
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
