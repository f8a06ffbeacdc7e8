"""Lists of a data report in words."""

from __future__ import annotations

from inbatch.data.report.cells import cell
from inbatch.data.report.values import FalseNegatives, ListLengths, ListReport, SourceReport

WARN_SHARE = 0.01  # of rows that share a text
WARN_NEGATIVES = 0.001  # of negatives that are known positives


def list_warnings(report: SourceReport, lists: ListReport) -> list[str]:
    """A line on known positives among the negatives, which no sampler keeps apart."""
    if lists.masked or not lists.false_negatives:
        return []
    found = lists.false_negatives[0]
    if found.other_share < WARN_NEGATIVES and found.row_share < WARN_SHARE:
        return []
    return [
        f"{found.other_share:.1%} of the negatives of source '{report.name}' are the query or a positive of "
        f"another row of their batch, and {found.row_share:.0%} of its rows share a query or positive "
        "with another: set loss.mask_duplicates=true, or use a guide."
    ]


def list_markdown(lists: ListReport) -> list[str]:
    """Lengths of lists, and false negatives."""
    lines = [
        "| texts a row | min | mean | median | max | rows by number |",
        "|---|---|---|---|---|---|",
    ]
    for role, lengths in (("positives", lists.positives), ("negatives", lists.negatives)):
        lines.append(f"| {role} | {_cells(lengths)} |")
    lines += ["", f"- rows without negatives: {lists.num_without_negatives:,}", ""]
    if lists.false_negatives:
        lines += _false_negatives(lists)
    return lines


def _cells(lengths: ListLengths) -> str:
    bins = ", ".join(
        f"{part.low if part.low == part.high else f'{part.low} to {part.high}'}: {part.count:,}"
        for part in lengths.bins
    )
    numbers = f"{lengths.min} | {lengths.mean:.2f} | {lengths.p50:.0f} | {lengths.max}"
    return f"{numbers} | {bins}"


def _false_negatives(lists: ListReport) -> list[str]:
    what = "the loss leaves them out" if lists.masked else "the loss takes them for negatives"
    lines = [
        f"Known positives that a batch holds besides a row's own ({what}):",
        "",
        "| sampler | batches with a query or positive twice | rows that share one "
        "| negatives that are one of their row | of another row |",
        "|---|---|---|---|---|",
        *map(_row, lists.false_negatives),
        "",
    ]
    for example in lists.examples:
        lines.append(f"- {'; '.join(f'{name}: {cell(text)}' for name, text in example.items())}")
    return [*lines, ""] if lists.examples else lines


def _row(found: FalseNegatives) -> str:
    name = f"{found.sampler}, {found.num_batches} looked at"
    shares = (found.batch_share, found.row_share, found.own_share, found.other_share)
    return f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |"
