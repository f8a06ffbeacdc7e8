"""What all ranks found, as one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inbatch.doctor.result import Result


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the table for all ranks: the value of the first that has one, and what is wrong on any."""

    section: str
    name: str
    value: str
    holds: bool | None
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """Findings, in the order of the checks, and the data of each rank."""

    world_size: int = 1
    findings: list[Finding] = field(default_factory=list)
    data: list[dict[str, Any]] = field(init=False)  # by rank

    def __post_init__(self) -> None:
        self.data = [{} for _ in range(self.world_size)]

    def add(self, section: str, found: Mapping[int, Sequence[Result]]) -> None:
        """Take the results of a check, {rank: results}; a rank that has not answered is left out."""
        self.findings += merge(section, found, world_size=self.world_size)
        for rank, results in found.items():
            for result in results:
                merge_data(self.data[rank], result.data)

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that is wrong."""
        return [problem for finding in self.findings for problem in finding.problems]

    @property
    def hosts(self) -> list[str]:
        """Names of the machines, the first rank's first."""
        return list(dict.fromkeys(data["host"] for data in self.data if "host" in data))

    def as_json(self) -> dict[str, Any]:
        """The data of rank 0 beside the findings; what plans are made from stands at the top."""
        checks = [
            {
                "section": finding.section,
                "name": finding.name,
                "value": finding.value,
                "holds": finding.holds,
                "problems": list(finding.problems),
            }
            for finding in self.findings
        ]
        ranks = [{"rank": rank, **data} for rank, data in enumerate(self.data)]
        return {**self.data[0], "problems": self.problems, "checks": checks, "ranks": ranks}


def merge(section: str, found: Mapping[int, Sequence[Result]], *, world_size: int) -> list[Finding]:
    """Findings of a check from the results of the ranks, {rank: results}."""
    by_name: dict[str, dict[int, Result]] = {}
    for rank in sorted(found):
        for result in found[rank]:
            by_name.setdefault(result.name, {})[rank] = result
    return [_finding(section, name, of, world_size) for name, of in by_name.items()]


def _finding(section: str, name: str, of: Mapping[int, Result], world_size: int) -> Finding:
    first = next(iter(of.values()))
    problems = [*_wrong(of, world_size), *_different(name, of)]
    holds = False if problems else first.holds
    return Finding(section, name, first.value, holds, tuple(problems))


def _wrong(of: Mapping[int, Result], world_size: int) -> list[str]:
    """Each sentence once, with the ranks that say it unless all do."""
    said: dict[str, list[int]] = {}
    for rank, result in of.items():
        if result.holds is False:
            said.setdefault(result.sentence, []).append(rank)
    return [
        sentence if len(ranks) == world_size else f"{name_ranks(ranks)}: {sentence}"
        for sentence, ranks in said.items()
    ]


def _different(name: str, of: Mapping[int, Result]) -> list[str]:
    """Name the ranks whose value is another than that of the first."""
    start, first = next(iter(of.items()))
    other: dict[str, list[int]] = {}
    for rank, result in of.items():
        if first.same and result.value != first.value:
            other.setdefault(result.value, []).append(rank)
    return [
        f"{name} of {name_ranks(ranks)} is {value!r}, and of rank {start} {first.value!r}: {first.same}"
        for value, ranks in other.items()
    ]


def name_ranks(ranks: Sequence[int]) -> str:
    """As ``rank 3`` or ``ranks 1, 2, 5``."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def merge_data(into: dict[str, Any], data: Mapping[str, Any]) -> None:
    """Add to nested dicts, in place; a value that is there is replaced."""
    for key, value in data.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge_data(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
