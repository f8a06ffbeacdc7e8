"""A forecast as a table on the terminal, a file with every number, and a plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib import rc_context

from inbatch.export.plot_style import GREY, PALETTE, STYLE, new_figure, save
from inbatch.files import write_csv
from inbatch.forecast.scaling import Step, best, end_of_scaling
from inbatch.forecast.step_time import Gather
from inbatch.run.memory_plan import GIB

Kind = tuple[str, Gather]  # strategy and gather
_PARTS = {
    "embed": "the encoder",
    "loss": "the loss",
    "optimizer": "the update",
    "gather": "embeddings that travel",
    "gradients": "the reduction of gradients",
    "parameters": "gathered parameters",
}


def kinds(steps: Sequence[Step]) -> dict[Kind, list[Step]]:
    """Steps by strategy and gather, each by number of ranks, the one step of one rank included."""
    first = [step for step in steps if step.ranks == 1]
    names = dict.fromkeys((step.strategy, step.gather) for step in steps if step.ranks > 1)
    found = {
        name: [*first, *(s for s in steps if s.ranks > 1 and (s.strategy, s.gather) == name)]
        for name in names
    }
    return found or {("ddp", "global"): first}


def lines(steps: Sequence[Step]) -> Iterator[str]:
    """The table: a line for each number of ranks with its fastest step, and what each kind comes to."""
    header = f"{'ranks':>5}  {'strategy':<17}  {'gather':<6}  {'s/step':>8}  {'rows/s':>9}  {'of ideal':>8}"
    yield f"{header}  {'GiB':>6}  {'sent MiB':>8}  longest part"
    fastest = best(steps)
    base = next(iter(fastest.values()), None)
    for ranks in dict.fromkeys(step.ranks for step in steps):
        step = fastest.get(ranks)
        if step is None or base is None:
            yield f"{ranks:>5,}  does not fit"
            continue
        ideal = step.rows_per_s / ranks / (base.rows_per_s / base.ranks)
        parts = step.time.parts()
        longest = max(parts, key=lambda name: parts[name])
        yield (
            f"{ranks:>5,}  {step.strategy:<17}  {step.gather:<6}  {step.time.total:>8.3g}  "
            f"{step.rows_per_s:>9,.0f}  {ideal:>8.0%}  {step.plan.memory.total / GIB:>6.1f}  "
            f"{step.time.sent_bytes / 2**20:>8,.0f}  {_PARTS[longest]} {parts[longest] / step.time.total:.0%}"
        )
    yield ""
    yield "By strategy and gather:"
    for (strategy, gather), each in kinds(steps).items():
        yield f"{strategy}, {gather}: {_verdict(each)}"


def _verdict(steps: Sequence[Step]) -> str:
    fitting = [step for step in steps if step.fits]
    if not fitting:
        return "fits on none of them"
    said = "" if len(fitting) == len(steps) else f"fits from {fitting[0].ranks:,} ranks on; "
    end = end_of_scaling(fitting)
    if end is None:
        return f"{said}every doubling pays up to {fitting[-1].ranks:,} ranks"
    last, part = end
    return f"{said}scaling ends at {last.ranks:,} ranks, by {_PARTS[part]}"


def write_steps(steps: Sequence[Step], path: Path) -> None:
    """Every step with its parts as a csv file."""
    parts = list(_PARTS)
    columns = ["ranks", "strategy", "gather", "global_rows", "fits", "seconds"]
    columns += [f"{part}_s" for part in parts]
    columns += ["sent_bytes", "memory_bytes", "chunk_tokens", "keep_gib"]
    rows = (
        [
            *(step.ranks, step.strategy, step.gather, step.global_rows, step.fits, step.time.total),
            *(step.time.parts()[part] for part in parts),
            *(step.time.sent_bytes, step.plan.memory.total, step.plan.chunk_tokens),
            step.plan.keep_gib,
        ]
        for step in steps
    )
    write_csv(path, columns, rows)


def plot_steps(steps: Sequence[Step], path: Path, *, title: str) -> None:
    """Seconds of a step over ranks, one curve for each strategy and gather, beside the ideal."""
    with rc_context(STYLE):
        figure, (axes,) = new_figure(1)
        for number, ((strategy, gather), each) in enumerate(kinds(steps).items()):
            fitting = [step for step in each if step.fits]
            axes.plot(
                [step.ranks for step in fitting],
                [step.time.total for step in fitting],
                color=PALETTE[number // 2 % len(PALETTE)],
                linestyle="-" if gather == "global" else "--",
                marker="o",
                markersize=3,
                label=f"{strategy}, {gather}",
            )
        fastest = list(best(steps).values())
        if fastest:
            first = fastest[0]
            ideal = [first.time.total * first.ranks / step.ranks for step in fastest]
            axes.plot(
                [step.ranks for step in fastest], ideal, color=GREY, linestyle=":", label="ideal"
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("ranks")
        axes.set_ylabel("seconds of a step (computed)")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(loc="best", fontsize=8)
        save(figure, path)
