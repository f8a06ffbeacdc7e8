"""The entry point that prepares data: the sources of a run -> a folder of shards (data/shards.py).

It takes the command line of the training run, so that tokens are made with that run's tokenizer,
prompts and max_length, and `prepare.<key>=value` for the keys of `Settings`. It may be stopped at any
time: the same command goes on with the shards that are missing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.cli.train import CONF_DIR, quiet
from inbatch.config.check import RunConfig, check_config
from inbatch.config.types import check_type, unknown_key
from inbatch.console import make_console, print_plain
from inbatch.data.collate import Collator
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.prepared import FORMAT, MANIFEST, write_json
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.run import build as parts_of
from inbatch.run.datamodule import describe_tokenizer

SAY_S = 10.0  # between two lines of progress where there is no terminal
PACKAGES = ("inbatch", "datasets", "pyarrow", "transformers", "tokenizers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Keys of `prepare`.

    output: folder to write. tokenize: store token ids too. workers: processes that copy the raw files
    and write shards.
    shard_rows: rows of a shard.
    """

    output: str
    tokenize: bool = False
    workers: int = 1
    shard_rows: int = 1 << 18


def read_settings(values: Mapping[str, Any]) -> Settings:
    """The keys of `prepare`, checked.

    Raises:
        ConfigError: an unknown or missing key, or a value that cannot be.
    """
    kinds = {"output": str, "tokenize": bool, "workers": int, "shard_rows": int}
    for key, value in values.items():
        if key not in kinds:
            raise unknown_key(f"prepare.{key}", kinds, "prepare")
        check_type(value, kinds[key], f"prepare.{key}")
        if kinds[key] is int and value < 1:
            raise ConfigError(f"prepare.{key}={value} is too small: set at least 1")
    if "output" not in values:
        raise ConfigError("prepare.output is not set: name a folder, as prepare.output=prepared")
    output = values["output"].removeprefix("file://")
    if "://" in output:
        raise ConfigError(
            f"prepare.output={output} is not on this machine, and shards are mapped from local files: "
            "name a local folder"
        )
    return Settings(**{**values, "output": output})


def prepare(run: RunConfig, settings: Settings) -> Path:
    """Write the sources of a checked configuration; returns the folder.

    Raises:
        ConfigError: the folder holds something else.
    """
    parts_of.prepare_data(run)
    sources = load_sources(run.data.train, cache_dir=run.data.cache_dir, workers=settings.workers)
    encoder = parts_of.make_encoder(run, sources) if settings.tokenize else None
    output = Path(settings.output)
    jobs = [make_job(source, output / source.name, settings, encoder) for source in sources]
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
            for rows in write_shards(job, numbers, workers=settings.workers):
                bar.add(rows)
            finish_job(job, versions=versions)
    names = [source.name for source in sources]
    write_json(output / MANIFEST, {"format": FORMAT, "sources": names, "versions": versions})
    return output


def make_job(source: Source, folder: Path, settings: Settings, encoder: Encoder | None) -> ShardJob:
    """What is to be written of one source."""
    if source.stored is not None:
        what = "prepared already" if source.streamed is None else "streamed (streaming=true)"
        raise ConfigError(f"{path_key(source.field)}={source.origin} is {what}: name the raw files")
    if encoder is None:
        return ShardJob(source=source, folder=folder, shard_rows=settings.shard_rows)
    collator = Collator(tokenizer=encoder.tokenizer, prompts=encoder.role_prompts)
    return ShardJob(
        source=source,
        folder=folder,
        shard_rows=settings.shard_rows,
        tokenize=encoder.tokenizer,
        tokens=describe_tokenizer(encoder.tokenizer, collator.column_prompts(source)),
    )


class Bar:
    """Rows that are done: a bar on a terminal, a line now and then elsewhere."""

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
        """Count the rows of a shard."""
        self._done += rows
        self._bar.advance(self._task, rows)
        if time.monotonic() - self._said_s >= SAY_S or self._done == self._total:
            self._said_s = time.monotonic()
            self._say("prepared")

    def _say(self, what: str) -> None:
        if not self._console.is_terminal:
            line = f"prepare  {self._done:,} of {self._total:,} rows {what}"
            print_plain(line, console=self._console)


def main() -> None:
    """`python scripts/prepare.py data.train=FILE prepare.output=DIR`."""
    launch(_main, conf=CONF_DIR)


@hydra.main(version_base="1.3", config_path=CONF_DIR, config_name="train")
def _main(cfg: DictConfig) -> None:
    quiet()
    with user_errors():
        output = prepare(*read_config(cfg))
        print_plain(f"train on it with data.train={output}", console=make_console())


def read_config(cfg: DictConfig) -> tuple[RunConfig, Settings]:
    """The run and the keys of `prepare` in a composed configuration."""
    OmegaConf.set_struct(cfg, False)
    node = cfg.pop("prepare", {})
    values = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(values, Mapping):
        raise ConfigError(f"prepare={values!r} is not a group of keys: set prepare.output=DIR")
    settings = read_settings({str(key): value for key, value in values.items()})
    if not settings.tokenize:  # then nobody asks for an encoder, and none need be named
        cfg.encoder = {"_target_": "inbatch.encoder.build_encoder"}
    return check_config(cfg), settings
