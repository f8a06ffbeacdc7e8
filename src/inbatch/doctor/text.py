"""The report as plain lines of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from inbatch.console import printable
from inbatch.doctor.report import Report

WIDTH = 80
_NAME = 28  # columns
_MARKS = {True: "ok", False: "WRONG", None: "-"}
_MARK = 7


def lines(report: Report) -> Iterator[str]:
    """A title, a section for each part, and one sentence for each thing that is wrong."""
    ranks = f"{report.world_size} ranks" if report.world_size > 1 else "one process"
    whose = "; values of rank 0" if report.world_size > 1 else ""
    yield from wrapped(f"inbatch doctor: {ranks} on {', '.join(report.hosts)}{whose}")
    for section, findings in groupby(report.findings, lambda finding: finding.section):
        yield ""
        yield section
        for finding in findings:
            start = f"  {_MARKS[finding.holds]:<{_MARK}}{finding.name:<{_NAME}} "
            yield from wrapped(finding.value, start=start)
    yield ""
    yield from verdict(report)


def verdict(report: Report) -> Iterator[str]:
    """Say that all holds, or what does not."""
    judged = [finding for finding in report.findings if finding.holds is not None]
    problems = report.problems
    if not problems:
        yield f"All {len(judged)} checks hold."
        return
    yield f"{len(problems)} thing{'s are' if len(problems) > 1 else ' is'} wrong:"
    for problem in problems:
        yield from wrapped(problem, start="- ", indent=2)


def wrapped(text: str, *, start: str = "", indent: int | None = None) -> list[str]:
    """A text in lines, the further ones indented like the first or by so many columns."""
    found = textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * (len(start) if indent is None else indent),
        break_on_hyphens=False,
    )
    return found or [start.rstrip()]
