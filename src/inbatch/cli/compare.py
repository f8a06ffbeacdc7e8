"""`inbatch compare`: several models and the same sets -> one table with intervals of a paired bootstrap.

It writes `comparison.json`, `comparison.md` and a plot of the differences.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.config.check_judging import check_compare
from inbatch.config.judging import CompareConfig
from inbatch.console import make_console, print_plain, run_table, show_table
from inbatch.evaluation.base import contents_of
from inbatch.evaluation.bootstrap import Interval
from inbatch.evaluation.parts import MEAN
from inbatch.export.comparison_plot import Difference, plot_differences
from inbatch.export.markdown import inline, table
from inbatch.files import write_json, write_text
from inbatch.run.comparison import Cell, Comparison, compare_models
from inbatch.run.judging import join_ranks, make_evaluators
from inbatch.run.quiet import quiet

JSON, MARKDOWN, PLOT = "comparison.json", "comparison.md", "comparison.png"


def compare(run: CompareConfig) -> Comparison:
    """Judge all models, print the table, and write it to the output directory.

    Raises:
        ConfigError: files or a device that cannot be used; the first model, or all others, cannot be judged.
    """
    evaluators = make_evaluators(run.evaluation.evaluators)
    place = join_ranks(run)
    found = compare_models(run, evaluators, place=place)
    if place.rank == 0:
        folder = Path(run.output_dir)
        contents = contents_of({evaluator.name: evaluator for evaluator in evaluators})
        write_json(folder / JSON, as_json(found, run))
        write_text(folder / MARKDOWN, as_markdown(found, run))
        written = {"comparison": str(folder / JSON), "table": str(folder / MARKDOWN)}
        if drawn := differences_of(found):
            plot_differences(drawn, next(iter(found.metrics)), folder / PLOT)
            written["plot"] = str(folder / PLOT)
        run_table({"data": contents})
        show_table(_header(run), list(rows_of(found)))
        run_table({"written": written})
        for name, error in found.errors.items():
            print_plain(f"left out: {name}: {error}", console=make_console())
    return found


def rows_of(found: Comparison) -> Iterator[list[str]]:
    """The table as cells: a row for each column of the comparison and each model, means first."""
    for column in _means_first(found):
        for model, cell in found.cells[column].items():
            yield [column, model, f"{cell.value:.4f}", _shown(cell.of), *_difference(cell)]


def as_markdown(found: Comparison, run: CompareConfig) -> str:
    """The table, and what it says, as a document."""
    columns = _means_first(found)
    wide = [
        [inline(model), *(_short(found.cells[column][model]) for column in columns)]
        for model in found.metrics
    ]
    first = inline(next(iter(found.metrics)))
    text = [
        f"Differences to {first}; * where the {run.confidence:.0%} interval of a difference leaves 0 out "
        f"({run.resamples:,} draws of a paired bootstrap over the rows of each set, seed {run.seed}).",
        table(["model", *map(inline, columns)], wide),
        table(_header(run), [[inline(cell) for cell in row] for row in rows_of(found)]),
        *(f"Left out: {inline(name)}: {inline(error)}" for name, error in found.errors.items()),
    ]
    return "\n\n".join(text) + "\n"


def as_json(found: Comparison, run: CompareConfig) -> dict[str, Any]:
    """The comparison for programs; what has no value is null."""
    return {
        "models": run.models,
        "data": run.data.eval,
        "first": next(iter(found.metrics)),
        "resamples": run.resamples,
        "confidence": run.confidence,
        "seed": run.seed,
        "columns": {
            column: {model: _cell_as_json(cell) for model, cell in cells.items()}
            for column, cells in found.cells.items()
        },
        "metrics": {
            model: {key: _finite(value) for key, value in metrics.items()}
            for model, metrics in found.metrics.items()
        },
        "errors": found.errors,
    }


def _cell_as_json(cell: Cell) -> dict[str, Any]:
    own = {"value": _finite(cell.value), "low": _finite(cell.of.low), "high": _finite(cell.of.high)}
    if cell.difference is None or cell.between is None:
        return own
    return own | {
        "difference": _finite(cell.difference),
        "difference_low": _finite(cell.between.low),
        "difference_high": _finite(cell.between.high),
        "told_apart": cell.told_apart,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _header(run: CompareConfig) -> list[str]:
    share = f"{run.confidence:.0%}"
    return ["metric", "model", "value", share, "difference", f"{share} of it", "apart"]


def _difference(cell: Cell) -> list[str]:
    if cell.difference is None or cell.between is None:
        return ["", "", ""]
    shown = _shown(cell.between, sign="+")
    return [f"{cell.difference:+.4f}", shown, "yes" if cell.told_apart else "no" if shown else ""]


def _short(cell: Cell) -> str:
    if cell.difference is None:
        return f"{cell.value:.4f}"
    return f"{cell.value:.4f} ({cell.difference:+.4f}{'*' if cell.told_apart else ''})"


def _shown(found: Interval, *, sign: str = "") -> str:
    if math.isnan(found.low):
        return ""
    return f"{found.low:{sign}.4f} to {found.high:{sign}.4f}"


def differences_of(found: Comparison) -> dict[str, list[Difference]]:
    """What can be drawn: {column: differences with intervals}."""
    drawn: dict[str, list[Difference]] = {}
    for column in _means_first(found):
        for model, cell in found.cells[column].items():
            if cell.difference is None or cell.between is None or math.isnan(cell.between.low):
                continue
            ends = cell.between.low, cell.between.high
            drawn.setdefault(column, []).append(Difference(model, cell.difference, *ends))
    return drawn


def _means_first(found: Comparison) -> list[str]:
    return sorted(found.cells, key=lambda column: MEAN not in column.split("_"))


def main(typed: str | None = None) -> None:
    """Compare as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="compare", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        found = compare(check_compare(cfg))
    if found.errors:
        sys.exit(1)
