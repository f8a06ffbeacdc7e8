"""The plot of the evaluations: what chooses the model in large panels, all the rest in small ones by set."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inbatch.export.markdown import number
from inbatch.export.metrics_log import Row, Series, names, series
from inbatch.export.plot_style import BLUE, GREY, ORANGE, PALETTE, finish, new_figure

FEW = 6  # metrics that all get a large panel
SMALL_COLUMNS = 6
_TITLE = "Evaluation (star: best, dotted line: first)"
_MINIMISED = ("loss", "mse")
_UNRANKED = ("threshold",)
_CUTOFF = re.compile(r"@\d+$")
_SIMILARITY = re.compile(r"(?:^|_)(cosine|dot|manhattan|euclidean|max)(?=_|$)")


class Family(NamedTuple):
    """Metrics of one set that are one measure, at several cutoffs or by several similarities."""

    title: str
    curves: dict[str, str]  # name of a metric by its label


def evaluation_figure(
    rows: Sequence[Row],
    *,
    best_steps: Mapping[str, int] | None = None,
    primary: Mapping[str, str] | None = None,
) -> Figure | None:
    """A large panel for each metric; of many metrics for the primary ones only, above small ones for all.

    Args:
        rows: one a step.
        best_steps: by metric, where the saved model stands; other metrics are starred at their best.
        primary: primary metric of each evaluation set, by the set's name, which begins its metrics.
    """
    found = [name.removeprefix("eval/") for name in names(rows, "eval/")]
    if not found:
        return None
    chosen = [key for key in (primary or {}).values() if key in found] or found[:1]
    if len(found) <= FEW:
        figure, axes = new_figure(len(found), columns=min(3, math.ceil(math.sqrt(len(found)))))
        figure.suptitle(_TITLE, fontsize=13, fontweight="bold")
        _draw_main(axes, found, rows, best_steps or {})
        return figure
    sets = {name: families(keys, name) for name, keys in by_set(found, primary or {}).items()}
    return _large_and_small(rows, chosen[:FEW], sets, best_steps or {})


def by_set(metrics: Sequence[str], sets: Mapping[str, str]) -> dict[str, list[str]]:
    """Metrics by the set whose name they begin with; the longest name wins, "" has the others."""
    found: dict[str, list[str]] = {}
    for metric in metrics:
        fits = [name for name in sets if name and metric.startswith(f"{name}_")]
        found.setdefault(max(fits, key=len, default=""), []).append(metric)
    return found


def families(metrics: Sequence[str], name: str) -> list[Family]:
    """Metrics of the set `name` by measure: ``x_cosine_recall@1`` and ``x_dot_recall@5`` are one family."""
    found: dict[str, dict[str, str]] = {}
    for metric in metrics:
        short = metric.removeprefix(f"{name}_") if name else metric
        title = _SIMILARITY.sub("", _CUTOFF.sub("", short)).strip("_") or short
        label = " ".join([*_SIMILARITY.findall(short), *_CUTOFF.findall(short)])
        found.setdefault(title, {})[label] = metric
    return [Family(_title(title, list(curves)), curves) for title, curves in found.items()]


def _title(measure: str, labels: Sequence[str]) -> str:
    """The measure, with its cutoff where it has one only."""
    return measure + ("".join(_CUTOFF.findall(labels[0])) if len(labels) == 1 else "")


def _large_and_small(
    rows: Sequence[Row],
    chosen: Sequence[str],
    sets: Mapping[str, Sequence[Family]],
    best_steps: Mapping[str, int],
) -> Figure:
    columns = min(3, len(chosen))
    heights = [3.4 * math.ceil(len(chosen) / columns)]
    heights += [0.5 + 2.3 * math.ceil(len(each) / SMALL_COLUMNS) for each in sets.values()]
    widest = min(SMALL_COLUMNS, max(map(len, sets.values())))
    figure = Figure(
        figsize=(max(4.6 * columns, 3.0 * widest, 8.0), sum(heights)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    large, *small = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    large.suptitle(_TITLE, fontsize=13, fontweight="bold")
    lines = math.ceil(len(chosen) / columns)
    axes = [large.add_subplot(lines, columns, place + 1) for place in range(len(chosen))]
    _draw_main(axes, chosen, rows, best_steps)
    for part, (name, each) in zip(small, sets.items(), strict=True):
        part.suptitle(name or "other metrics", fontsize=12, x=0.01, ha="left")
        lines = math.ceil(len(each) / widest)
        for place, family in enumerate(each):
            _draw_family(part.add_subplot(lines, widest, place + 1), family, rows)
    return figure


def _draw_main(
    all_axes: Sequence[Axes],
    metrics: Sequence[str],
    rows: Sequence[Row],
    best_steps: Mapping[str, int],
) -> None:
    for axes, key in zip(all_axes, metrics, strict=True):
        _main_curve(axes, series(rows, f"eval/{key}"), key, best_step=best_steps.get(key))
        spec = axes.get_subplotspec()
        axes.set_ylabel("value" if spec is None or spec.is_first_col() else "")


def _draw_family(axes: Axes, family: Family, rows: Sequence[Row]) -> None:
    for (label, metric), colour in zip(family.curves.items(), cycle(PALETTE)):
        found = series(rows, f"eval/{metric}")
        axes.plot(found.steps, found.values, color=colour, label=label, marker="o", markersize=2.5)
    finish(axes, family.title, "", log=False)
    axes.set_title(family.title, fontsize=10)
    axes.set_xlabel("")
    axes.tick_params(labelsize=8)
    if len(family.curves) > 1:
        axes.legend(loc="best", fontsize=7)


def _main_curve(axes: Axes, found: Series, name: str, *, best_step: int | None = None) -> None:
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
    finish(axes, name, "value", log=False)
    axes.set_title(name, fontsize=11)
