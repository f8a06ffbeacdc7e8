"""Curves of a run as PNG files, drawn from the rows of its `metrics.jsonl`.

`plot_run` asks each function below for a figure; one without its series draws none, and its file
does not appear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from inbatch.export.evaluation_plot import evaluation_figure
from inbatch.export.metrics_log import Row, Series, by_step, names, series
from inbatch.export.plot_style import (
    BLUE,
    INK,
    ORANGE,
    PALETTE,
    PURPLE,
    RED,
    STYLE,
    finish,
    new_figure,
    save,
)
from inbatch.export.smoothing import smooth
from inbatch.files import writing

Draw = Callable[[Sequence[Row]], Figure | None]
_SMOOTHING = 0.025  # of the drawn points, the span that one smoothed point sees


def plot_run(
    rows: Sequence[Row],
    out_dir: str | Path,
    *,
    best_steps: Mapping[str, int] | None = None,
    primary: Mapping[str, str] | None = None,
) -> list[Path]:
    """Draw what the rows hold.

    Args:
        rows: of `read_metrics`.
        out_dir: is made where it is missing; files of earlier calls are overwritten.
        best_steps: by metric of the evaluation, where the saved model stands; other metrics are
            starred at the first of their best values.
        primary: the primary metric of each evaluation set, by the set's name.

    Returns:
        The files written: loss, learning_rate, gradient_norm, throughput, evaluation, similarity.
    """
    out_dir = Path(out_dir)
    rows = by_step(rows)
    paths = []
    evaluated = partial(evaluation_figure, best_steps=best_steps, primary=primary)
    plots: dict[str, Draw] = {**_PLOTS, "evaluation": evaluated}
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
    figure, (axes,) = new_figure(1)
    if len(sources) > 1:
        for name, colour in zip(sources, cycle(PALETTE)):
            _raw_and_smooth(axes, series(rows, name), colour, name.removeprefix("train/loss/"))
        _line(axes, _smoothed(series(rows, "train/loss")), INK, "all sources", linestyle="--")
    else:
        _raw_and_smooth(axes, series(rows, "train/loss"), BLUE, "training loss")
    finish(axes, "Training loss", "loss")
    return figure


def _learning_rate(rows: Sequence[Row]) -> Figure | None:
    found = series(rows, "train/lr")
    if not found.steps:
        return None
    figure, (axes,) = new_figure(1)
    _line(axes, found, BLUE, "")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    finish(axes, "Learning rate", "learning rate", log=False)
    return figure


def _gradient_norm(rows: Sequence[Row]) -> Figure | None:
    found = series(rows, "train/gradient_norm")
    if not found.steps:
        return None
    figure, (axes,) = new_figure(1)
    _raw_and_smooth(axes, found, BLUE, "gradient norm")
    finish(axes, "Gradient norm before clipping", "L2 norm")
    return figure


def _throughput(rows: Sequence[Row]) -> Figure | None:
    wanted = {
        "perf/samples_per_s": ("Throughput, all processes", "samples / s", BLUE),
        "perf/tokens_per_s": ("Throughput, all processes", "tokens / s", ORANGE),
    }
    found = {name: series(rows, name) for name in wanted if series(rows, name).steps}
    if not found:
        return None
    figure, all_axes = new_figure(len(found))
    for axes, (name, values) in zip(all_axes, found.items(), strict=True):
        title, label, colour = wanted[name]
        _raw_and_smooth(axes, values, colour, "")
        axes.set_ylim(bottom=0, top=1.1 * max(values.values) or 1.0)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        finish(axes, title, label, log=False)
    return figure


def _similarity(rows: Sequence[Row]) -> Figure | None:
    positive = series(rows, "train/positive_similarity")
    negative = series(rows, "train/hardest_negative_similarity")
    filtered = series(rows, "train/filtered_share")
    drawn = [part for part in (positive.steps or negative.steps, filtered.steps) if part]
    if not drawn:
        return None
    figure, all_axes = new_figure(len(drawn))
    if positive.steps or negative.steps:
        _raw_and_smooth(all_axes[0], positive, BLUE, "positive")
        _raw_and_smooth(all_axes[0], negative, RED, "hardest negative")
        finish(all_axes[0], "Similarity of a query to its texts", "mean similarity", log=False)
    if filtered.steps:
        percent = Series(filtered.steps, [100.0 * value for value in filtered.values])
        _raw_and_smooth(all_axes[-1], percent, PURPLE, "")
        all_axes[-1].set_ylim(bottom=0)
        finish(all_axes[-1], "Negatives left out as false", "% of negatives", log=False)
    return figure


_PLOTS: dict[str, Draw] = {
    "loss": _loss,
    "learning_rate": _learning_rate,
    "gradient_norm": _gradient_norm,
    "throughput": _throughput,
    "evaluation": evaluation_figure,
    "similarity": _similarity,
}


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
