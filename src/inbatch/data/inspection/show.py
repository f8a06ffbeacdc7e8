"""An inspection for the terminal: rich's rendering, which is plain text where it is piped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from inbatch.console import printable
from inbatch.data.inspection import layout
from inbatch.data.inspection.roles import IGNORED
from inbatch.data.inspection.values import (
    Inspection,
    Place,
    RoleOf,
    SeenRow,
    SeenText,
    SourceFacts,
)
from inbatch.data.report.cells import share
from inbatch.data.report.text import count_lines
from inbatch.data.report.values import Bin, ColumnReport, LabelReport, ListReport, SourceReport

_FILES_SHOWN = 3
_HEAD, _TAIL = 200, 60  # characters of a long text that are shown


def show(inspection: Inspection, console: Console) -> None:
    """Print all of it, source by source; without blanks at the ends of lines where it is no terminal."""
    if console.is_terminal:
        _print(inspection, console)
        return
    with console.capture() as captured:
        _print(inspection, console)
    for line in captured.get().splitlines():
        console.print(Text(line.rstrip()), soft_wrap=True)


def _print(inspection: Inspection, console: Console) -> None:
    for facts, report in zip(inspection.sources, inspection.report.sources, strict=True):
        console.print(layout.heading(f"{facts.name}: {report.num_rows:,} rows"))
        for part in _source(facts, report, inspection):
            _indented(part, console)
    if inspection.samplers:
        title = f"Known false negatives in batches of {inspection.global_batch_size:,} rows"
        console.print(layout.heading(title))
        _indented(Group(*_samplers(inspection), *_kept_out(inspection)), console)
    if inspection.report.warnings:
        console.print(layout.heading("Warnings"))
        _indented(layout.bullets(map(layout.plain, inspection.report.warnings)), console)
    console.print(layout.heading("Suggestions"))
    _indented(layout.bullets(_advice(inspection)), console)


def _indented(part: RenderableType, console: Console) -> None:
    console.print(Padding(part, (0, 0, 0, 2), expand=False))
    console.print()


def _source(
    facts: SourceFacts, report: SourceReport, inspection: Inspection
) -> Iterator[RenderableType]:
    yield _origin(facts, report)
    yield _roles(facts.roles)
    yield Group(*_lengths(report, inspection))
    if report.lists is not None:
        yield Group(*_lists(report.lists))
    yield Group(*_repeats(facts, report))
    if report.label is not None:
        yield _labels(report.label, report.num_rows)
    if facts.rows:
        yield Group(*_rows(facts.rows, cut=inspection.encoder is not None))


def _origin(facts: SourceFacts, report: SourceReport) -> RenderableType:
    lines = [*_files(facts.place), *([report.read_as] if report.read_as else [])]
    lines.append(report.intake.describe())
    lines += _scripts(facts.scripts)
    return layout.lines(lines)


def _scripts(scripts: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """A line for all columns where they are alike, else one for each."""
    shown = {
        column: ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) or "none"
        for column, shares in scripts.items()
    }
    if len(set(shown.values())) == 1:
        yield f"letters (sampled): {next(iter(shown.values()))}"
    else:
        yield from (f"letters of {column} (sampled): {text}" for column, text in shown.items())


def _files(place: Place) -> Iterator[str]:
    size = "" if place.num_bytes is None else f", {layout.size(place.num_bytes)}"
    if not place.files:
        yield f"{place.origin} ({place.kind})" if place.kind else place.origin
        return
    number = "" if len(place.files) == 1 else f"{len(place.files):,} files, "
    first = place.files[0] if len(place.files) == 1 else place.origin
    yield f"{first} ({number}{place.kind}{size})"
    if len(place.files) > 1:
        more = len(place.files) - _FILES_SHOWN
        yield from (f"  {path}" for path in place.files[:_FILES_SHOWN])
        if more > 0:
            yield f"  and {more:,} more"


def _roles(roles: Sequence[RoleOf]) -> RenderableType:
    table = layout.table("column", "role", "why")
    ignored = [role for role in roles if role.role == IGNORED]
    for role in roles:
        if role.role != IGNORED:
            table.add_row(*layout.cells(role.column, role.role, role.rule))
    if ignored:
        names = ", ".join(role.column for role in ignored)
        table.add_row(*layout.cells(names, IGNORED, ignored[0].rule))
    return table


def _lengths(report: SourceReport, inspection: Inspection) -> Iterator[RenderableType]:
    with_tokens = report.num_sampled > 0
    table = layout.table(
        "column", right=["characters", *(["tokens", "cut"] if with_tokens else [])]
    )
    table.add_column("distinct texts", justify="right", overflow="fold")
    for column in report.columns:
        cells = [column.name, layout.span(column.characters)]
        if with_tokens:
            cells += [layout.span(column.tokens), share(column.truncated_share)]
        table.add_row(*layout.cells(*cells, f"{column.num_distinct:,}"))
    yield table
    notes = ["lengths: median / 95th percentile / longest"]
    if with_tokens:
        notes.append(
            f"tokens of {report.num_sampled:,} sampled rows by {inspection.encoder}, "
            f"cut at {inspection.report.max_length}"
        )
    else:
        notes.append("name an encoder (encoder=minilm, encoder.model=...) to count tokens")
    yield layout.dim("; ".join(notes))
    yield from (
        layout.dim(f"prompt of {c.name}: {c.prompt!r}") for c in _with_prompt(report.columns)
    )


def _with_prompt(columns: Iterable[ColumnReport]) -> Iterator[ColumnReport]:
    return (column for column in columns if column.prompt)


def _lists(lists: ListReport) -> Iterator[RenderableType]:
    table = layout.table("texts a row", right=["least", "mean", "median", "most"])
    remarks = []
    for role, number in (("positives", lists.positives), ("negatives", lists.negatives)):
        cells = (f"{number.min:,}", f"{number.mean:.2f}", f"{number.p50:.0f}", f"{number.max:,}")
        table.add_row(*layout.cells(role, *cells))
        rows = ", ".join(f"{part.count:,} with {_number(part)}" for part in number.bins)
        remarks.append(layout.dim(f"{role}: {rows}"))
    yield table
    yield from remarks


def _number(part: Bin) -> str:
    return f"{part.low}" if part.low == part.high else f"{part.low} to {part.high}"


def _repeats(facts: SourceFacts, report: SourceReport) -> Iterator[RenderableType]:
    yield layout.lines(count_lines(report))
    if facts.overlaps:
        yield layout.lines(
            f"texts in both {each.left} and {each.right}: {each.num_texts:,}"
            for each in facts.overlaps
        )


def _labels(label: LabelReport, num_rows: int) -> RenderableType:
    table = layout.table(label.name, right=["rows", "share"])
    for part in label.bins:
        value = f"{part.low:g}" if part.low == part.high else f"{part.low:g} to {part.high:g}"
        table.add_row(*layout.cells(value, f"{part.count:,}", f"{part.count / num_rows:.1%}"))
    return table


def _rows(rows: Sequence[SeenRow], *, cut: bool) -> Iterator[RenderableType]:
    count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    how = "as the encoder gets them" if cut else "whole, since no encoder is named"
    yield Text(f"{count} drawn at random, {how}", style="bold")
    for row in rows:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        label = "" if row.label is None else f", label {row.label:g}"
        yield Text(f"row {row.number:,}{label}")
        for text in row.texts:
            grid.add_row(Text(f"  {printable(text.column)}"), _seen(text))
        yield grid


def _seen(text: SeenText) -> Text:
    shown = printable(text.text)
    if len(shown) > _HEAD + _TAIL:
        shown = f"{shown[:_HEAD]} … {shown[-_TAIL:]}"
    line = Text.assemble((printable(text.prompt), "bold"), shown)
    if text.cut:
        line.append(f" [cut here: {len(text.cut):,} more characters]", style="red")
    return line


def _samplers(inspection: Inspection) -> Iterator[RenderableType]:
    facts = inspection.samplers
    several = len({fact.source for fact in facts if fact.problem is None}) > 1
    heads = ["sampler", "source"] if several else ["sampler"]
    figures = ["steps", "rows left out", "batches", "rows", "negatives"]
    table = layout.table(*heads, right=figures)
    for fact in facts:
        name = f"{fact.sampler} *" if fact.configured else fact.sampler
        names = [name, fact.source] if several else [name]
        if fact.problem is not None:
            table.add_row(*layout.cells(*names, *["-"] * len(figures)))
            continue
        found = fact.false_negatives
        shares = (found.batch_share, found.row_share, found.negative_share)
        cells = [f"{fact.num_steps:,}", f"{fact.num_skipped:,}", *map(share, shares)]
        table.add_row(*layout.cells(*names, *cells))
    yield table
    most = max(fact.false_negatives.num_batches for fact in facts)
    looked_at = "the one batch was" if most == 1 else f"{most} batches spread over the epoch were"
    yield layout.dim(
        "shares of batches and rows that have one, and of negatives that are one: a document of another "
        "row that is a known positive of the query, since it is an equal text or its row shares a text or "
        f"key; {looked_at} looked at; * as configured"
    )
    if not several:
        yield layout.dim("round_robin and proportional: as no_duplicates, for one source")
    yield from (
        layout.dim(f"{f.sampler}: refused, {f.problem}") for f in facts if f.problem is not None
    )


def _kept_out(inspection: Inspection) -> Iterator[RenderableType]:
    """What the configured loss does about them."""
    for names, how in (
        (inspection.masked, "leaves them out of the negatives (loss.mask_duplicates)"),
        (inspection.guided, "leaves out of the negatives what its guide finds"),
    ):
        if names:
            yield layout.dim(f"the loss of {', '.join(names)} {how}")


def _advice(inspection: Inspection) -> Iterator[Text]:
    for advice in inspection.advice:
        yield Text.assemble((advice.setting, "bold"), f": {advice.reason}")
