"""Reports on a sweep: `sweep.csv`, a table on the terminal, `plots/` and the link `best`.

Everything is made from the folders of the trials, at the end of a sweep or at any time later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inbatch.console import duration, make_console, print_plain, printable
from inbatch.files import write_csv
from inbatch.folder.paths import RunFolder
from inbatch.sweep.trials import Trial, best_trial, read_trials, varied

TABLE = "sweep.csv"
BEST = "best"
_DIGITS = 8


def report(sweep: Path, *, console: Console | None = None) -> dict[Path, Trial]:
    """Write the table, plots and link of a sweep, and print the table.

    Args:
        sweep: the folder of a `--multirun`.
        console: where to print; None for standard output.

    Returns:
        The trials by folder.

    Raises:
        ConfigError: there are no trials, or they cannot be compared.
    """
    console = console or make_console()
    trials = read_trials(sweep)
    best = best_trial(trials)
    rows = [row_of(folder, trial, sweep) for folder, trial in trials.items()]
    names = varied(list(trials.values()))
    _write_csv(rows, sweep / TABLE)
    _link(best, sweep / BEST)
    from inbatch.sweep.plots import plot_sweep  # here, since matplotlib delays each start

    plots = plot_sweep(list(trials.values()), names, sweep / "plots")
    _print_table(trials, names, best, console=console)
    _print_errors(trials, console=console)
    if "precision" not in names:
        _print_precisions(trials, console=console)
    paths = {"table": sweep / TABLE, "plots": sweep / "plots" if plots else None}
    if best is not None:
        paths["best"] = sweep / BEST
    for label, path in paths.items():
        if path is not None:
            print_plain(f"{label}: {path}", console=console)
    return trials


def row_of(folder: Path, trial: Trial, sweep: Path) -> dict[str, Any]:
    """A trial as a row of `sweep.csv`."""
    result = trial.result
    return {
        "trial": trial.number,
        "status": trial.status,
        "metric": result.metric,
        "value": result.value,
        "step": result.step,
        "seconds": trial.seconds,
        "folder": str(folder.relative_to(sweep)),
        **trial.parameters,
        "error": trial.error,
    }


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row if name != "error"))
    columns = [*names, "error"]
    write_csv(path, columns, ([row.get(name) for name in columns] for row in rows))


def _link(best: Path | None, link: Path) -> None:
    """Point the link at the best run; relative, so that the sweep's folder can be moved."""
    link.unlink(missing_ok=True)
    if best is not None:
        link.symlink_to(best.relative_to(link.parent), target_is_directory=True)


def _print_table(
    trials: Mapping[Path, Trial], names: list[str], best: Path | None, *, console: Console
) -> None:
    """The trials, best first; those without a value last."""
    metric = trials[best].result.metric if best is not None else None
    header = ["trial", "status", metric or "metric", "step", "time", *names]
    ordered = sorted(trials.items(), key=lambda item: _rank(item[1]))
    lines = [_cells(trial, names) for _, trial in ordered]
    if not console.is_terminal:
        for cells in lines:
            pairs = zip(header, cells, strict=True)
            print_plain("  ".join(f"{name}={cell}" for name, cell in pairs), console=console)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for position, name in enumerate(header):
        table.add_column(
            printable(name), justify="right" if position in (2, 3, 4) else "left", overflow="fold"
        )
    for (folder, trial), cells in zip(ordered, lines, strict=True):
        style = "green" if folder == best else "" if trial.succeeded else "red"
        table.add_row(*(Text(printable(cell)) for cell in cells), style=style)
    console.print(table)


def _cells(trial: Trial, names: list[str]) -> list[str]:
    result = trial.result
    return [
        str(trial.number),
        trial.status,
        "-" if result.value is None else f"{result.value:.4f}",
        "-" if result.step is None else f"{result.step:,}",
        "-" if trial.seconds is None else duration(trial.seconds),
        *(_short(trial.parameters.get(name, "-")) for name in names),
    ]


def _short(value: str) -> str:
    """A number that a search has drawn, with as many digits as a person reads."""
    try:
        return value if len(value) <= _DIGITS else f"{float(value):.4g}"
    except ValueError:
        return value


def _rank(trial: Trial) -> tuple[bool, float, int]:
    value = trial.result.value if trial.succeeded else None
    sign = -1.0 if trial.result.mode == "max" else 1.0
    return value is None, sign * (value or 0.0), trial.number


def _print_precisions(trials: Mapping[Path, Trial], *, console: Console) -> None:
    """Say so where `precision=auto` has stood for different things on different machines."""
    found: dict[str, list[str]] = {}
    for folder, trial in trials.items():
        config = RunFolder(folder).config
        text = config.read_text(encoding="utf-8") if config.exists() else ""
        for name in re.findall(r"^precision: (\S+)$", text, re.MULTILINE):
            found.setdefault(name, []).append(str(trial.number))
    if len(found) > 1:
        each = "; ".join(f"{name}: trials {', '.join(found[name])}" for name in sorted(found))
        why = "their machines differ: set precision=fp32 where that matters"
        print_plain(
            f"trials were computed in different precisions ({each}), {why}", console=console
        )


def _print_errors(trials: Mapping[Path, Trial], *, console: Console) -> None:
    for folder, trial in trials.items():
        if trial.succeeded and trial.result.metric and trial.result.value is None:
            why = "it was not evaluated after a step: set evaluation.every_steps"
            print_plain(f"trial {trial.number} has no value: {why}", console=console)
        if trial.succeeded:
            continue
        why = trial.error or {
            "running": f"it has no result: it is still running, or was killed; see {folder}",
            "stopped": f"it was stopped; the same command with hydra.sweep.dir={folder.parent} resumes it",
        }.get(trial.status, "")
        print_plain(f"trial {trial.number} {trial.status}: {why}", console=console)
