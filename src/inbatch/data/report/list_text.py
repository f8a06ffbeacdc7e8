"""Lists of a data report in words."""

from __future__ import annotations

from inbatch.data.report.cells import cell, share
from inbatch.data.report.values import FalseNegatives, ListLengths, ListReport, SourceReport

WARN_SHARE = 0.01  # of rows that have a known positive among their negatives


def list_warnings(report: SourceReport, lists: ListReport) -> list[str]:
    """A line on known positives among the negatives, which no sampler keeps apart."""
    if lists.masked or not lists.false_negatives:
        return []
    found = next(iter(lists.false_negatives.values()))
    if found.row_share < WARN_SHARE:
        return []
    return [
        f"{found.row_share:.0%} of the rows of source '{report.name}' have a known positive among the "
        "negatives of their batch: set loss.mask_duplicates=true, or use a guide."
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
        f"Known positives of a query among the documents that it is contrasted with ({what}):",
        "",
        "| sampler | batches that hold one | rows that have one | negatives that are one |",
        "|---|---|---|---|",
        *map(_row, lists.false_negatives.items()),
        "",
    ]
    for example in lists.examples:
        lines.append(f"- {'; '.join(f'{name}: {cell(text)}' for name, text in example.items())}")
    return [*lines, ""] if lists.examples else lines


def _row(found: tuple[str, FalseNegatives]) -> str:
    sampler, counts = found
    name = f"{sampler}, {counts.num_batches} looked at"
    shares = (counts.batch_share, counts.row_share, counts.negative_share)
    return f"| {name} | {' | '.join(map(share, shares))} |"
