"""Record the numbers of short runs, or compare two records.

    python scripts/witness.py record before.json
    python scripts/witness.py record after.json
    python scripts/witness.py compare before.json after.json --exact

`--exact` compares bit for bit, as two records of one machine must; without it numbers may differ by
what another machine's rounding explains.
`record tests/witness/recorded.json` renews what the tests compare with, after a change that is meant to
change results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def record_all(target: Path, names: list[str]) -> None:
    sys.path[:0] = [str(ROOT / "tests")]
    import torch

    from helpers.witness import CASES, record, write_inputs

    torch.set_num_threads(1)
    found = {}
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = record(name, Path(folder), write_inputs(Path(folder)))
        print(f"recorded {name}", flush=True)
    target.write_text(json.dumps(found, indent=1) + "\n")


def compare(before: Path, after: Path, *, exact: bool) -> int:
    sys.path[:0] = [str(ROOT / "tests")]
    from helpers.witness import differences

    old, new = (json.loads(path.read_text()) for path in (before, after))
    lines = [f"| {name} | only in one | |" for name in sorted(old.keys() ^ new.keys())]
    for name in sorted(old.keys() & new.keys()):
        for what, *values in differences(old[name], new[name], exact=exact):
            lines.append(f"| {name}: {what} | {values[0]} | {values[1]} |")
    if lines:
        print("| run | before | after |\n|---|---|---|", *lines, sep="\n")
    print(f"{len(old.keys() & new.keys())} runs compared, {len(lines)} differences")
    return int(bool(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("record")
    one.add_argument("target", type=Path)
    one.add_argument("--only", nargs="*", default=[], help="names of runs; all by default")
    two = commands.add_parser("compare")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    two.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    if options.command == "record":
        record_all(options.target, options.only)
        return 0
    return compare(options.before, options.after, exact=options.exact)


if __name__ == "__main__":
    sys.exit(main())
