"""The data report in words: warnings, a Markdown page, a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from inbatch.data.report.cells import cell
from inbatch.data.report.list_text import list_markdown, list_warnings
from inbatch.data.report.values import ColumnReport, DataReport, Lengths, ScoreReport, SourceReport
from inbatch.data.sources.dropped import OF_TEXTS, Dropped

# Below this share a peculiarity of the data is counted but not warned about.
WARN_SHARE = 0.01
SKIPPED_SHARE = 0.001  # the same for rows that are never trained on


def warnings_of(report: SourceReport, max_length: int | None, *, guided: bool) -> list[str]:
    """Warnings about one source, in plain sentences.

    Repeated texts are not reported where the sampler keeps them apart or a guide finds them; no sampler keeps
    negatives of lists apart.
    """
    apart = guided or (report.lists is None and report.batches_with_duplicates == 0.0)
    lines = ([] if apart else _batch_warnings(report)) + _row_warnings(report)
    for column in report.columns:
        of = f"column '{column.name}' of source '{report.name}'"
        if column.numbers_only:
            # Not refused: codes that are all digits may well be what is to be matched.
            lines.append(
                f"all sampled texts in {of} are numbers: unless they are codes to be "
                "learnt as texts, name another column in data.columns."
            )
        if column.lists_as_texts:
            lines.append(
                f"texts in {of} are lists written as text, and are trained on with their brackets."
            )
        if column.truncated_share is not None and column.truncated_share >= WARN_SHARE:
            lines.append(
                f"{column.truncated_share:.0%} of the texts in {of} are longer than "
                f"max_length={max_length} tokens and are cut."
            )
    return lines


def to_markdown(report: DataReport) -> str:
    """Warnings first, then each source: columns, counts, labels, samples."""
    lines = ["# Data report", ""]
    if report.warnings:
        lines += ["**Warnings**", "", *(f"- {line}" for line in report.warnings), ""]
    for source in report.sources:
        lines += _source_markdown(source)
    return "\n".join(lines).rstrip() + "\n"


def to_table(report: DataReport) -> Table:
    """One line a column."""
    table = Table(title="Data")
    heads = ("source", "rows", "column", "role", "tokens p50", "p95", "max", "cut", "distinct")
    for head in heads:
        left = head in ("source", "column", "role")
        table.add_column(head, justify="left" if left else "right")
    for source in report.sources:
        for i, column in enumerate(source.columns):
            name, rows = (source.name, f"{source.num_rows:,}") if i == 0 else ("", "")
            tokens = ["-"] * 3
            if column.tokens is not None:
                lengths = column.tokens
                tokens = [f"{lengths.p50:.0f}", f"{lengths.p95:.0f}", f"{lengths.max}"]
            distinct = f"{column.num_distinct:,}"
            cells = (name, rows, column.name, column.role, *tokens, _cut(column), distinct)
            table.add_row(*cells)
    return table


def count_lines(report: SourceReport) -> list[str]:
    """Repeated texts, keys, and rows that were dropped or skipped, a line each, for a terminal."""
    return [line.removeprefix("- ").replace("`", "'") for line in _counts(report)]


def skipped_warnings(name: str, count: int, num_rows: int) -> list[str]:
    """A line on rows that no batch of the first epoch holds, if they are many."""
    if count <= SKIPPED_SHARE * num_rows:
        return []
    return [
        f"{count} rows of {name} ({count / num_rows:.1%}) are skipped in the first epoch: they "
        "share a text with every batch that had room, or the sampler ends the epoch before them, or "
        "finds too few others of their label."
    ]


def _batch_warnings(report: SourceReport) -> list[str]:
    """Rows that would be false negatives of each other."""
    if report.lists is not None:
        return list_warnings(report, report.lists)
    lines = []
    name = f"source '{report.name}'"
    fix = "use sampler=no_duplicates or a guide"
    for what, others, count in (
        ("queries", "positives", report.shared_queries),
        ("positives", "queries", report.shared_positives),
    ):
        if count is not None and count.row_share >= WARN_SHARE:
            lines.append(
                f"{count.text_share:.0%} of the {what} of {name} ({count.row_share:.0%} of its "
                f"rows) occur with several {others}, and become false negatives of each other "
                f"in a batch: {fix}."
            )
    if report.batches_with_duplicates:
        lines.append(
            f"{report.batches_with_duplicates:.0%} of the global batches of {name} would hold a "
            f"text twice, as a false negative: {fix}."
        )
    return lines


def _row_warnings(report: SourceReport) -> list[str]:
    lines = []
    name, rows = f"source '{report.name}'", report.num_rows
    whole, texts = _left_out(report)
    for what, dropped in (
        (f"{report.intake.unit} of {name} were left out", whole),
        (f"rows of {name} are used without some of their texts", texts),
    ):
        if dropped:
            total = sum(each.count for each in dropped)
            lines.append(f"{total:,} {what}: {', '.join(map(Dropped.describe, dropped))}.")
    lines += skipped_warnings(name, report.num_skipped, rows)
    if report.num_duplicate_rows >= WARN_SHARE * rows:
        lines.append(
            f"{report.num_duplicate_rows} rows of {name} ({report.num_duplicate_rows / rows:.0%}) "
            "repeat an earlier row: remove them, or they count twice."
        )
    # A labelled pair may well hold a text twice; as a query and its positive that teaches nothing.
    if report.label is None and report.num_positive_is_query >= WARN_SHARE * rows:
        lines.append(
            f"{report.num_positive_is_query} rows of {name} have a positive equal to the query: "
            "they teach nothing."
        )
    if report.num_negative_is_own:
        lines.append(
            f"{report.num_negative_is_own} rows of {name} have a negative equal to their query "
            f"or {'a ' if report.lists else ''}positive: remove them."
        )
    if report.label is not None and report.label.num_distinct == 1:
        lines.append(
            f"all labels of {name} are {report.label.min:g}: a loss on labels learns nothing."
        )
    return lines


def _source_markdown(report: SourceReport) -> list[str]:
    lines = [f"## {report.name}", "", f"{report.num_rows:,} rows from `{report.origin}`."]
    if report.intake.read != report.num_rows:
        lines.append(f"{report.intake.describe()}.")
    if report.read_as:
        lines.append(f"{report.read_as[0].upper()}{report.read_as[1:]}.")
    if report.ignored_columns:
        lines.append(f"Ignored columns: {', '.join(report.ignored_columns)}.")
    lines += ["", *_column_table(report), "", *_counts(report), ""]
    if report.lists is not None:
        lines += list_markdown(report.lists)
    if report.label is not None:
        label = report.label
        values = f"min {label.min:g}, mean {label.mean:.4g}, max {label.max:g}"
        lines += [f"Label `{label.name}`: {values}.", "", "| value | rows |", "|---|---|"]
        for part in label.bins:
            value = f"{part.low:g}" if part.low == part.high else f"{part.low:g} to {part.high:g}"
            lines.append(f"| {value} | {part.count:,} |")
        lines.append("")
    names = list(report.samples[0])
    lines += [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for sample in report.samples:
        lines.append(f"| {' | '.join(cell(sample[name]) for name in names)} |")
    return [*lines, ""]


def _column_table(report: SourceReport) -> list[str]:
    sampled = f" ({report.num_sampled:,} rows)" if report.num_sampled else ""
    lines = [
        f"| column | role | characters | tokens{sampled} | cut | distinct |",
        "|---|---|---|---|---|---|",
    ]
    for column in report.columns:
        cells = [column.name, column.role, _span(column.characters), _span(column.tokens)]
        cells += [_cut(column), f"{column.num_distinct:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "Lengths: min / mean / median / 95th percentile / max."]


def _counts(report: SourceReport) -> list[str]:
    lines = [f"- repeated rows: {report.num_duplicate_rows:,}"]
    others = ("rows", "rows") if report.lists else ("positives", "queries")
    for what, count in (
        (f"queries with several {others[0]}", report.shared_queries),
        (f"positives with several {others[1]}", report.shared_positives),
    ):
        if count is not None:
            lines.append(
                f"- {what}: {count.num_texts:,} ({count.text_share:.1%}), in {count.num_rows:,} "
                f"rows ({count.row_share:.1%})"
            )
    if report.counted_one_in > 1:
        lines.append(
            f"- estimates from one text in {report.counted_one_in}, as all counts of distinct ones"
        )
    lines.append(f"- positive equal to its query: {report.num_positive_is_query:,}")
    lines.append(f"- negative equal to its query or positive: {report.num_negative_is_own:,}")
    if report.key is not None:
        lines.append(
            f"- key `{report.key.name}`: {report.key.num_distinct:,} distinct; "
            f"{report.key.num_sharing_rows:,} rows share theirs, at most {report.key.most_rows:,} one"
        )
    if report.scores is not None:
        lines.append(f"- {score_line(report.scores)}")
    whole, texts = _left_out(report)
    lines += [f"- {report.intake.unit} left out: {each.describe()}" for each in whole]
    lines += [f"- rows used without some of their texts: {each.describe()}" for each in texts]
    if report.num_skipped:
        lines.append(f"- rows skipped in the first epoch: {report.num_skipped:,}")
    if report.batches_with_duplicates is not None:
        lines.append(f"- global batches with a text twice: {report.batches_with_duplicates:.1%}")
    return lines


def _left_out(report: SourceReport) -> tuple[list[Dropped], list[Dropped]]:
    """What was left out as a whole, and texts of rows that are used."""
    of_texts = OF_TEXTS if report.intake.is_rows else ()
    whole = [each for each in report.dropped if each.reason not in of_texts]
    return whole, [each for each in report.dropped if each.reason in of_texts]


def score_line(scores: ScoreReport) -> str:
    """Which columns hold scores of documents, how many lack one, and whether the loss uses them."""
    line = f"scores of documents in {', '.join(scores.columns)}"
    if scores.num_without:
        line += f", some lacking in {scores.num_without:,} rows"
    return (
        line if scores.used is None else f"{line}: {'' if scores.used else 'not '}used by the loss"
    )


def _span(lengths: Lengths | None) -> str:
    if lengths is None:
        return "-"
    middle = f"{lengths.mean:.1f} / {lengths.p50:.0f} / {lengths.p95:.0f}"
    return f"{lengths.min} / {middle} / {lengths.max}"


def _cut(column: ColumnReport) -> str:
    return "-" if column.truncated_share is None else f"{column.truncated_share:.1%}"
