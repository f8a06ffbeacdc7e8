"""`inbatch prepare`: the sources of a run -> a folder of shards (data/sources/shards.py).

It takes the command line of the training run, so that tokens are made with that run's tokenizer,
prompts and max_length, and `prepare.<key>=value` for the keys of `PrepareConfig`. It may be stopped at
any time: the same command resumes with the shards that are missing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.cli.own_keys import take_own_keys
from inbatch.config.check import RunConfig, check_config
from inbatch.config.targets import check_targets
from inbatch.console import make_console, print_plain
from inbatch.data.collate import Collator
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.prepared import FORMAT, MANIFEST
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.files import write_json
from inbatch.run import build as parts_of
from inbatch.run.datamodule import describe_tokenizer
from inbatch.run.quiet import quiet

SAY_S = 10.0  # between two lines of progress where there is no terminal
PACKAGES = ("inbatch", "datasets", "pyarrow", "transformers", "tokenizers")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """Keys of `prepare`.

    Args:
        output: folder to write.
        tokenize: store token ids too, so that training tokenizes nothing.
        workers: processes that copy the raw files and write shards.
        shard_rows: rows of a shard.

    Raises:
        ConfigError: there is no local folder to write, or a number is below 1.
    """

    output: str = ""
    tokenize: bool = False
    workers: int = 1
    shard_rows: int = 1 << 18

    def __post_init__(self) -> None:
        if not self.output:
            raise ConfigError("output", "has no value", "name a folder, as prepare.output=prepared")
        if "://" in self.output:
            problem = "is not on this machine, and shards are mapped from local files"
            raise ConfigError("output", problem, "name a local folder", value=self.output)
        for key in ("workers", "shard_rows"):
            if getattr(self, key) < 1:
                value = getattr(self, key)
                raise ConfigError(key, "is too small", "set at least 1", value=value)


def read_options(values: Mapping[str, Any]) -> PrepareConfig:
    """Check the keys of `prepare`.

    Raises:
        ConfigError: an unknown or missing key, or a value that cannot be used.
    """
    values = {"output": "", **values}
    if isinstance(values["output"], str):
        values["output"] = values["output"].removeprefix("file://")
    check_targets({"_target_": f"{__name__}.PrepareConfig", **values}, "prepare")
    try:
        return PrepareConfig(**values)
    except ConfigError as error:
        raise error.under(f"prepare.{error.key}") from None


def prepare_sources(run: RunConfig, options: PrepareConfig) -> Path:
    """Write the sources of a checked configuration as shards; return their folder.

    Raises:
        ConfigError: the folder holds something else.
    """
    parts_of.generate_data(run.data)
    sources = load_sources(run.data.train, cache_dir=run.data.cache_dir, workers=options.workers)
    encoder = parts_of.make_encoder(run.encoder, sources) if options.tokenize else None
    output = Path(options.output)
    jobs = [shard_job(source, output / source.name, options, encoder) for source in sources]
    missing = [open_job(job) for job in jobs]
    total = sum(job.source.num_rows for job in jobs)
    to_do = sum(
        stop - start
        for job, numbers in zip(jobs, missing)
        for start, stop in map(job.rows_of, numbers)
    )
    versions = {name: version(name) for name in PACKAGES}
    with Bar(total, done=total - to_do) as bar:
        for job, numbers in zip(jobs, missing):
            for rows in write_shards(job, numbers, workers=options.workers):
                bar.add(rows)
            finish_job(job, versions=versions)
    names = [source.name for source in sources]
    write_json(output / MANIFEST, {"format": FORMAT, "sources": names, "versions": versions})
    return output


def shard_job(
    source: Source, folder: Path, options: PrepareConfig, encoder: Encoder | None
) -> ShardJob:
    """Return what to write for one source; token ids only with an encoder."""
    if source.stored is not None:
        what = "is prepared already" if source.streamed is None else "is streamed (streaming=true)"
        raise ConfigError(path_key(source.field), what, "name the raw files", value=source.origin)
    if encoder is None:
        return ShardJob(source=source, folder=folder, shard_rows=options.shard_rows)
    collator = Collator(tokenizer=encoder.tokenizer, prompts=encoder.role_prompts)
    return ShardJob(
        source=source,
        folder=folder,
        shard_rows=options.shard_rows,
        tokenize=encoder.tokenizer,
        tokens=describe_tokenizer(encoder.tokenizer, collator.column_prompts(source)),
    )


class Bar:
    """Shows how many rows are done: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, total: int, *, done: int) -> None:
        self._console = make_console()
        self._total, self._done, self._said_s = total, done, time.monotonic()
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("prepare", total=total, completed=done)

    def __enter__(self) -> Bar:
        self._bar.start()
        if self._done:
            self._say("are there already")
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def add(self, rows: int) -> None:
        """Count the rows of a finished shard."""
        self._done += rows
        self._bar.advance(self._task, rows)
        if time.monotonic() - self._said_s >= SAY_S or self._done == self._total:
            self._said_s = time.monotonic()
            self._say("prepared")

    def _say(self, what: str) -> None:
        if not self._console.is_terminal:
            line = f"prepare  {self._done:,} of {self._total:,} rows {what}"
            print_plain(line, console=self._console)


def main(typed: str | None = None) -> None:
    """Prepare data as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="train", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        output = prepare_sources(*read_config(cfg))
        print_plain(f"train on it with data.train={output}", console=make_console())


def read_config(cfg: DictConfig) -> tuple[RunConfig, PrepareConfig]:
    """Split a composed configuration into that of the run and the keys of `prepare`, both checked."""
    options = read_options(take_own_keys(cfg, "prepare", example="prepare.output=DIR"))
    if not options.tokenize:  # nothing is tokenized, so no encoder needs to be named
        cfg.encoder = {"_target_": "inbatch.encoder.build_encoder"}
    return check_config(cfg), options
