"""The tables of the migration page, from the code that `inbatch import` runs.

    python -m inbatch.migration.page

writes them into README.md here; a test keeps them in step and complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from inbatch.files import write_text
from inbatch.migration import arguments, data, encoder, functions, loss_nodes

PAGE = Path(__file__).with_name("README.md")
_START = "<!-- The tables below are written by python -m inbatch.migration.page -->\n"


def tables() -> str:
    """All of them, as Markdown."""
    parts = [
        ("Losses", _rows(_losses())),
        ("Samplers", _rows(_samplers())),
        ("Evaluators", _rows(_evaluators())),
        ("Modules", _rows(encoder.MODULES.items())),
        ("Functions", _rows((f"`{there}`", here) for there, here in functions.HERE.items())),
        ("Training arguments", _rows((_coded(names), here) for names, here in arguments.HERE)),
    ]
    sections = [f"### {title}\n\n| there | here |\n|---|---|\n{rows}\n" for title, rows in parts]
    refused = _rows(_not_applicable())
    sections.append(
        "<details><summary>What has no counterpart, and why</summary>\n\n"
        f"| there | why not |\n|---|---|\n{refused}\n\n</details>\n"
    )
    return "\n".join(sections)


def page() -> str:
    """The whole page with the tables of today."""
    return PAGE.read_text(encoding="utf-8").partition(_START)[0] + _START + "\n" + tables()


def _losses() -> Iterable[tuple[str, str]]:
    by_class: dict[str, list[str]] = {}
    for there, (here, _) in loss_nodes.MAKERS.items():
        by_class.setdefault(here, []).append(there)
        if there in loss_nodes.CACHED:
            by_class[here].append(f"Cached{there}")
    return ((_coded(there), f"`inbatch.losses.{here}`") for here, there in by_class.items())


def _samplers() -> Iterable[tuple[str, str]]:
    for name, (file, target) in data.WITHIN.items():
        yield (
            f"`BatchSamplers`: `{name}`",
            f"`sampler={file}`, `sampler.within._target_`: `{target}`",
        )
    for name in data.MIXERS:
        yield f"`MultiDatasetBatchSamplers`: `{name}`", f"`sampler={name}`"


def _evaluators() -> Iterable[tuple[str, str]]:
    for there, file in data.EVALUATORS.items():
        yield f"`{there}`", f"`inbatch.evaluation.{there}`, `evaluation={file}`"
    yield "`NanoBEIREvaluator`", "`data.eval=NanoBEIR`"


def _not_applicable() -> Iterable[tuple[str, str]]:
    for table in (loss_nodes.REFUSED, data.REFUSED, encoder.REFUSED, functions.REFUSED):
        by_reason: dict[str, list[str]] = {}
        for name, why in table.items():
            by_reason.setdefault(why, []).append(name)
        yield from ((_coded(names), why) for why, names in by_reason.items())
    yield from ((_coded(row.names), row.reason) for row in arguments.ELSEWHERE)


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"| {there} | {here} |" for there, here in pairs)


def _coded(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    write_text(PAGE, page())
