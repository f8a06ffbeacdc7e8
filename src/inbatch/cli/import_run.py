"""`inbatch import`: a run of sentence-transformers as an experiment, from what it has left."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from inbatch.config.schema import CONF
from inbatch.errors import ConfigError
from inbatch.files import write_text
from inbatch.migration import Experiment, make_experiment, read_source


def main(typed: str | None = None) -> int:
    """Write the experiment of the command line's source; `typed` is not needed, no process repeats it."""
    parser = argparse.ArgumentParser(prog="inbatch import")
    parser.add_argument(
        "source",
        type=Path,
        help="card (.md), model or run directory, arguments (.json), script (.py)",
    )
    parser.add_argument("--name", help="of the experiment; without it that of the source")
    parser.add_argument(
        "--output", type=Path, help="a folder or a YAML file; without it the file is printed"
    )
    given = parser.parse_args()
    try:
        name = check_name(given.name) if given.name else name_of(given.source)
        experiment = make_experiment(read_source(given.source), name, given.source.name)
        target = place(given.output, name) if given.output else None
        if target is None:
            print(experiment.yaml, end="")
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_text(target, experiment.yaml)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tell(experiment, target)
    return 0


def name_of(source: Path) -> str:
    """A name made of that of a file, or of the folder where the file's says nothing."""
    generic = source.stem.lower() in ("readme", "card", "config", "training_args", "train", "model")
    path = source.absolute()
    if path.is_dir():
        stem = path.parent.name if path.name == "model" else path.name
    else:
        stem = path.parent.name if generic else path.stem
    return re.sub(r"\W+", "_", stem).strip("_") or "imported"


def check_name(name: str) -> str:
    """Refuse what is no name of a file."""
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(
            "--name", "is no name of a file", "use letters, digits, _ and -", value=name
        )
    return name


def place(output: Path, name: str) -> Path:
    """The file to write; one that is there is not replaced."""
    target = output if output.suffix in (".yaml", ".yml") else output / f"{name}.yaml"
    if target.exists():
        raise ConfigError(
            str(target), "is there already", "give another --name or --output, or remove it"
        )
    return target


def tell(experiment: Experiment, target: Path | None) -> None:
    """Print what is left to do and what was not carried over, beside the file itself."""
    lines = []
    command = experiment.command
    if target is not None:
        folder = target.absolute().parent
        if folder.name == "experiment" and folder.parent != CONF.absolute():
            command += f" --config-dir {folder.parent}"
        command = re.sub(r"experiment=\S+", f"experiment={target.stem}", command)
        lines.append(f"written: {target}")
        if folder.name != "experiment":
            lines.append(
                f"to run it, move it to a folder named experiment: {folder / 'experiment'}"
            )
    lines += [f"give: {need}" for need in experiment.needs]
    lines += [f"not carried over: {note}" for note in experiment.notes]
    if experiment.idle:
        lines.append(f"without effect here: {', '.join(experiment.idle)}")
    print("\n".join([*lines, f"run: {command}"]), file=sys.stderr)
