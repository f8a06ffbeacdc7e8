"""An inspection for the terminal: rich's rendering, which is plain text where it is piped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from inbatch.console import printable
from inbatch.data.inspection.roles import IGNORED
from inbatch.data.inspection.values import (
    Inspection,
    Place,
    RoleOf,
    SamplerFacts,
    SeenRow,
    SeenText,
    SourceFacts,
)
from inbatch.data.report.text import count_lines
from inbatch.data.report.values import ColumnReport, LabelReport, Lengths, SourceReport

_FILES_SHOWN = 3
_HEAD, _TAIL = 200, 60  # characters of a long text that are shown
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


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
        console.print(_heading(f"{facts.name}: {report.num_rows:,} rows"))
        for part in _source(facts, report, inspection):
            _indented(part, console)
    if inspection.samplers:
        title = f"Known false negatives in batches of {inspection.global_batch_size:,} rows"
        console.print(_heading(title))
        _indented(Group(*_samplers(inspection.samplers)), console)
    if inspection.report.warnings:
        console.print(_heading("Warnings"))
        _indented(_bullets(map(_plain, inspection.report.warnings)), console)
    console.print(_heading("Suggestions"))
    _indented(_bullets(_advice(inspection)), console)


def _indented(part: RenderableType, console: Console) -> None:
    console.print(Padding(part, (0, 0, 0, 2), expand=False))
    console.print()


def _source(
    facts: SourceFacts, report: SourceReport, inspection: Inspection
) -> Iterator[RenderableType]:
    yield _origin(facts, report)
    yield _roles(facts.roles)
    yield Group(*_lengths(report, inspection))
    yield Group(*_repeats(facts, report))
    if report.label is not None:
        yield _labels(report.label, report.num_rows)
    if facts.rows:
        yield Group(*_rows(facts.rows, cut=inspection.encoder is not None))


def _origin(facts: SourceFacts, report: SourceReport) -> RenderableType:
    lines = [*_files(facts.place)]
    read = f"{facts.num_read:,} rows read, {report.num_rows:,} used"
    if report.num_dropped:
        read += f", {report.num_dropped:,} dropped for an empty text, or no label or key"
    lines.append(read)
    lines += _scripts(facts.scripts)
    return _lines(lines)


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
    size = "" if place.num_bytes is None else f", {_size(place.num_bytes)}"
    if not place.files:
        yield f"{place.origin} ({place.kind})"
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
    table = _table("column", "role", "why")
    ignored = [role for role in roles if role.role == IGNORED]
    for role in roles:
        if role.role != IGNORED:
            table.add_row(*_cells(role.column, role.role, role.rule))
    if ignored:
        names = ", ".join(role.column for role in ignored)
        table.add_row(*_cells(names, IGNORED, ignored[0].rule))
    return table


def _lengths(report: SourceReport, inspection: Inspection) -> Iterator[RenderableType]:
    with_tokens = report.num_sampled > 0
    table = _table("column", right=["characters", *(["tokens", "cut"] if with_tokens else [])])
    table.add_column("distinct texts", justify="right", overflow="fold")
    for column in report.columns:
        cells = [column.name, _span(column.characters)]
        if with_tokens:
            cells += [_span(column.tokens), _share(column.truncated_share)]
        table.add_row(*_cells(*cells, f"{column.num_distinct:,}"))
    yield table
    notes = ["lengths: median / 95th percentile / longest"]
    if with_tokens:
        notes.append(
            f"tokens of {report.num_sampled:,} sampled rows by {inspection.encoder}, "
            f"cut at {inspection.report.max_length}"
        )
    else:
        notes.append("name an encoder (encoder=minilm, encoder.model=...) to count tokens")
    yield _dim("; ".join(notes))
    yield from (_dim(f"prompt of {c.name}: {c.prompt!r}") for c in _with_prompt(report.columns))


def _with_prompt(columns: Iterable[ColumnReport]) -> Iterator[ColumnReport]:
    return (column for column in columns if column.prompt)


def _repeats(facts: SourceFacts, report: SourceReport) -> Iterator[RenderableType]:
    yield _lines(count_lines(report))
    if facts.overlaps:
        yield _lines(
            f"texts in both {each.left} and {each.right}: {each.num_texts:,}"
            for each in facts.overlaps
        )


def _labels(label: LabelReport, num_rows: int) -> RenderableType:
    table = _table(label.name, right=["rows", "share"])
    for part in label.bins:
        value = f"{part.low:g}" if part.low == part.high else f"{part.low:g} to {part.high:g}"
        table.add_row(*_cells(value, f"{part.count:,}", f"{part.count / num_rows:.1%}"))
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


def _samplers(facts: Sequence[SamplerFacts]) -> Iterator[RenderableType]:
    several = len({fact.source for fact in facts if fact.problem is None}) > 1
    heads = ["sampler", "source"] if several else ["sampler"]
    figures = ["steps", "rows left out", "batches", "rows", "negatives"]
    table = _table(*heads, right=figures)
    for fact in facts:
        name = f"{fact.sampler} *" if fact.configured else fact.sampler
        names = [name, fact.source] if several else [name]
        if fact.problem is not None:
            table.add_row(*_cells(*names, *["-"] * len(figures)))
            continue
        shares = (fact.batch_share, fact.row_share, fact.negative_share)
        cells = [f"{fact.num_steps:,}", f"{fact.num_skipped:,}", *map(_share, shares)]
        table.add_row(*_cells(*names, *cells))
    yield table
    most = max(fact.num_looked_at for fact in facts)
    looked_at = "the one batch was" if most == 1 else f"{most} batches spread over the epoch were"
    yield _dim(
        "shares of batches and rows that have one, and of negatives that are one: a document of another "
        "row that is a known positive of the query, since it is an equal text or its row shares a text or "
        f"key; {looked_at} looked at; * as configured"
    )
    if not several:
        yield _dim("round_robin and proportional: as no_duplicates, for one source")
    yield from (_dim(f"{f.sampler}: refused, {f.problem}") for f in facts if f.problem is not None)


def _advice(inspection: Inspection) -> Iterator[Text]:
    for advice in inspection.advice:
        yield Text.assemble((advice.setting, "bold"), f": {advice.reason}")


def _heading(text: str) -> Text:
    return Text(printable(text), style="bold underline")


def _table(*left: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in left:
        table.add_column(printable(name), overflow="fold")
    for name in right:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _cells(*cells: str) -> list[Text]:
    return [Text(printable(cell)) for cell in cells]


def _lines(lines: Iterable[str]) -> Text:
    return Text("\n").join([Text(printable(line)) for line in lines])


def _bullets(lines: Iterable[Text]) -> Table:
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row("-", line)
    return grid


def _plain(text: str) -> Text:
    return Text(printable(text))


def _dim(text: str) -> Text:
    return Text(printable(text), style="dim")


def _span(lengths: Lengths | None) -> str:
    return "-" if lengths is None else f"{lengths.p50:,.0f} / {lengths.p95:,.0f} / {lengths.max:,}"


def _share(share: float | None) -> str:
    if share is None:
        return "-"
    return "0%" if share == 0 else f"{share:.1%}" if share >= 0.001 else f"{100 * share:.1g}%"


def _size(num_bytes: float) -> str:
    unit = 0
    while num_bytes >= 1000 and unit < len(_UNITS) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.3g} {_UNITS[unit]}"
