"""A sweep as PNG files: the metric over each parameter, and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

from inbatch.export.markdown import number, shorten
from inbatch.export.plot_style import BLUE, GREY, INK, ORANGE, STYLE, save
from inbatch.sweep.trials import Trial

_LOG_RANGE = 8.0  # largest to smallest value from which a parameter is spread by its logarithm
_COLOURS = "viridis"
_MAX_TICKS = 6
_LABEL_CHARACTERS = 18
_LINE_CHARACTERS = 26  # of all tick labels, above which they are slanted


class Scale(NamedTuple):
    """Where the values of a parameter lie on an axis from 0 to 1."""

    places: list[float]  # of each trial
    ticks: list[float]
    labels: list[str]


def plot_sweep(trials: Sequence[Trial], names: Sequence[str], out_dir: Path) -> list[Path]:
    """Draw the trials that have a value.

    Args:
        trials: of the sweep.
        names: parameters to draw.
        out_dir: is made where it is missing.

    Returns:
        The files written: metric_by_parameter.png and parallel_coordinates.png; none where fewer than
        two trials have a value or no parameter differs.
    """
    drawn = [trial for trial in trials if trial.succeeded and trial.result.value is not None]
    if len(drawn) < 2 or not names:
        return []
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for file, draw in (("metric_by_parameter", _by_parameter), ("parallel_coordinates", _parallel)):
        with mpl.rc_context(STYLE):
            paths.append(out_dir / f"{file}.png")
            save(draw(drawn, names), paths[-1])
    return paths


def scale(values: Sequence[str]) -> Scale:
    """Spread values over an axis: numbers by size or logarithm, other texts evenly.

    Numbers and other texts mixed (``null,0.1``) count as texts.
    """
    numbers = [_number(value) for value in values]
    if any(value is None for value in numbers):
        return _of_texts(values)
    found = [value for value in numbers if value is not None]
    distinct = sorted(set(found))
    log = distinct[0] > 0 and distinct[-1] / distinct[0] >= _LOG_RANGE
    raw = [math.log(value) if log else value for value in found]
    low, high = min(raw), max(raw)
    width = (high - low) or 1.0
    few = len(distinct) <= _MAX_TICKS
    marks = distinct if few else [_from(low + width * i / 4, log) for i in range(5)]
    ticks = [((math.log(mark) if log else mark) - low) / width for mark in marks]
    return Scale([(value - low) / width for value in raw], ticks, [_short(m) for m in marks])


def _of_texts(values: Sequence[str]) -> Scale:
    distinct = list(dict.fromkeys(values))
    place = {value: i / max(1, len(distinct) - 1) for i, value in enumerate(distinct)}
    return Scale(
        [place[value] for value in values],
        list(place.values()),
        [shorten(value, _LABEL_CHARACTERS) for value in distinct],
    )


def _by_parameter(trials: Sequence[Trial], names: Sequence[str]) -> Figure:
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(6.0, 4.2 * columns), 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    values = [_value(trial) for trial in trials]
    best = _best(trials)
    for position, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, position + 1)
        spread = scale([trial.parameters.get(name, "-") for trial in trials])
        axes.scatter(spread.places, values, s=44, color=BLUE, alpha=0.75, linewidths=0, zorder=3)
        axes.scatter(
            [spread.places[best]], [values[best]], s=210, marker="*", color=ORANGE, zorder=4
        )
        crowded = sum(map(len, spread.labels)) > _LINE_CHARACTERS
        axes.set_xticks(spread.ticks, spread.labels)
        if crowded:
            for label in axes.get_xticklabels():
                label.set(rotation=25, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.12, 1.12)
        axes.margins(y=0.15)
        axes.set_xlabel(name)
        axes.set_ylabel(_metric(trials) if position % columns == 0 else "")
    figure.suptitle(_title(trials, best), fontsize=12, fontweight="bold")
    return figure


def _parallel(trials: Sequence[Trial], names: Sequence[str]) -> Figure:
    """One vertical axis a parameter and one for the metric; a curve for each trial, better on top."""
    values = [_value(trial) for trial in trials]
    scales = [scale([trial.parameters.get(name, "-") for trial in trials]) for name in names]
    scales.append(scale([str(value) for value in values]))
    figure = Figure(figsize=(max(7.0, 2.4 * len(scales)), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(1, 1, 1)
    colours = ScalarMappable(Normalize(min(values), max(values)), _COLOURS)
    sign = 1.0 if trials[0].result.mode == "max" else -1.0
    best = _best(trials)
    for order, position in enumerate(np.argsort([sign * value for value in values])):
        curve = _curve([each.places[position] for each in scales])
        is_best = int(position) == best
        axes.add_patch(
            PathPatch(
                curve,
                facecolor="none",
                edgecolor=ORANGE if is_best else colours.to_rgba(values[position]),
                linewidth=3.2 if is_best else 1.8,
                alpha=1.0 if is_best else 0.8,
                zorder=2 + order,
            )
        )
    _vertical_axes(axes, scales, [*names, _metric(trials)])
    figure.colorbar(colours, ax=axes, label=_metric(trials), pad=0.02)
    figure.suptitle(_title(trials, best), fontsize=12, fontweight="bold")
    return figure


def _vertical_axes(axes: Axes, scales: Sequence[Scale], names: Sequence[str]) -> None:
    axes.set_xlim(-0.35, len(scales) - 0.65)
    axes.set_ylim(-0.06, 1.06)
    axes.grid(False)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(range(len(scales)), names)
    axes.tick_params(axis="x", length=0)
    above = 10_000
    for position, each in enumerate(scales):
        axes.plot([position, position], [0, 1], color=GREY, linewidth=1.2, zorder=1)
        for tick, label in zip(each.ticks, each.labels, strict=True):
            axes.annotate(
                label,
                (position, tick),
                xytext=(-5, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=9,
                color=INK,
                zorder=above,
                bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75},
            )


def _curve(heights: Sequence[float]) -> Curve:
    """A smooth line through one height on each axis, level where it crosses."""
    vertices: list[tuple[float, float]] = [(0.0, heights[0])]
    codes: list[int] = [int(Curve.MOVETO)]
    for position, (left, right) in enumerate(pairwise(heights)):
        vertices += [(position + 0.4, left), (position + 0.6, right), (position + 1.0, right)]
        codes += [int(Curve.CURVE4)] * 3
    return Curve(vertices, codes)


def _best(trials: Sequence[Trial]) -> int:
    sign = 1.0 if trials[0].result.mode == "max" else -1.0
    return max(range(len(trials)), key=lambda place: sign * _value(trials[place]))


def _title(trials: Sequence[Trial], best: int) -> str:
    return (
        f"{len(trials)} trials, best (orange): {number(_value(trials[best]))} "
        f"at trial {trials[best].number}"
    )


def _metric(trials: Sequence[Trial]) -> str:
    return str(trials[0].result.metric)


def _value(trial: Trial) -> float:
    assert trial.result.value is not None
    return trial.result.value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _from(place: float, log: bool) -> float:
    return math.exp(place) if log else place


def _short(value: float) -> str:
    return f"{value:.3g}"
