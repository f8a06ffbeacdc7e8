"""`inbatch inspect`: the training data of a run -> what a person should know about them, without training.

It takes the command line of the training run, and `inspect.<key>=value` for the keys of `InspectConfig`.
Configuration, files, columns and rows are checked as a run checks them. Of the encoder only the tokenizer is
loaded, and none needs to be named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.cli.own_keys import take_own_keys
from inbatch.config.check import RunConfig, check_config
from inbatch.config.instantiate import instantiate
from inbatch.config.targets import check_targets
from inbatch.console import make_console, print_plain
from inbatch.data.collate import check_mixable
from inbatch.data.inspection.examine import Batches, Reader, examine
from inbatch.data.inspection.samplers import Configured
from inbatch.data.inspection.show import show
from inbatch.data.inspection.texts import texts_of_rows
from inbatch.data.inspection.values import Inspection
from inbatch.data.plan.plan import Sampler, SourceInfo
from inbatch.data.sources.load import Source, load_sources
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.files import write_json
from inbatch.run import build as parts_of
from inbatch.run.batch_checks import check_batch, check_others
from inbatch.run.datamodule import source_info
from inbatch.run.quiet import quiet

BUILD_ENCODER = "inbatch.encoder.build_encoder"
# A run of this output_dir may come later: nothing is written to its folder.
_NO_FOLDER = ("hydra.run.dir=.", "hydra.job_logging.root.handlers=[]")
TOKENIZER_ROWS = 20_000  # of a source, from which a tokenizer that is to be learned is learned here


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectConfig:
    """Keys of `inspect`.

    Args:
        rows: rows of each source to show as the encoder gets them.
        output: file for all of it as JSON; none where it is empty.

    Raises:
        ConfigError: a number below 0, or a file that is not called .json.
    """

    rows: int = 10
    output: str = ""

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ConfigError("rows", "is too small", "set 0 or more", value=self.rows)
        if self.output and Path(self.output).suffix != ".json":
            fix = "name a file, as inspect.output=inspection.json"
            raise ConfigError("output", "is not a .json file", fix, value=self.output)


def inspect_data(run: RunConfig, options: InspectConfig, *, sampler: str) -> Inspection:
    """Look at the training data of a checked configuration.

    Args:
        run: of the training run; without `encoder.model` or `encoder.config`, tokens are not counted.
        options: of this command.
        sampler: how the configured one is called.

    Raises:
        ConfigError: files, columns or rows that cannot be used, or that the loss does not fit.
    """
    parts_of.generate_data(run.data)
    sources = load_sources(run.data.train, cache_dir=run.data.cache_dir)
    mixed, guided = bool(run.sampler.get("mixed")), run.guide.model is not None
    sources, losses = parts_of.make_losses(run.loss, sources, guided=guided, mixed=mixed)
    sizes = parts_of.batch_sizes(run.global_batch_size, run.sampler.get("batch_sizes"), sources)
    check_others(losses, sources, sizes, mixed=mixed, ranks=1)
    check_batch(sources, sizes, mixed=mixed, drop_last=run.drop_last)
    infos = [source_info(source) for source in sources]
    return examine(
        sources,
        infos,
        columns={name: value["columns"] for name, value in run.data.train.items()},
        losses=losses,
        reader=read_by(run.encoder, sources),
        batches=Batches(
            sampler=planned(run, sources, infos, name=sampler),
            global_batch_size=run.global_batch_size,
            seed=run.seed,
            drop_last=run.drop_last,
        ),
        num_rows=options.rows,
    )


def planned(
    run: RunConfig, sources: Sequence[Source], infos: Sequence[SourceInfo], *, name: str
) -> Configured:
    """The configured sampler, which makes the plan of the first epoch as in a run.

    Raises:
        ConfigError: it cannot.
    """
    sampler: Sampler = instantiate(run.sampler)
    plan = sampler.plan(
        infos,
        global_batch_size=run.global_batch_size,
        seed=run.seed,
        epoch=0,
        drop_last=run.drop_last,
    )
    if plan.mixture is not None:
        check_mixable(sources, one_loss=parts_of.is_one_loss(run.loss))
    return Configured(name, sampler, plan)


def read_by(node: Mapping[str, Any], sources: Sequence[Source]) -> Reader:
    """The tokenizer and the prompts of an encoder, whose weights are neither fetched nor read.

    Args:
        node: of the encoder; one that names neither a model nor a config has no tokenizer.
        sources: whose first rows a tokenizer is learned from, where it is learned.
    """
    if node["_target_"] != BUILD_ENCODER:
        encoder: Encoder = instantiate(node, key="encoder", texts=partial(_texts, sources))
        return Reader(
            tokenizer=encoder.tokenizer, name=node["_target_"], prompts=encoder.role_prompts
        )
    if node.get("model") is None and node.get("config") is None:
        return Reader()
    with torch.device("meta"):  # an architecture without memory
        encoder = instantiate(
            {**node, "pretrained": False}, key="encoder", texts=partial(_texts, sources)
        )
    learned = isinstance(node.get("tokenizer"), Mapping)
    name = "a tokenizer learned from some of the rows" if learned else node["model"]
    return Reader(tokenizer=encoder.tokenizer, name=name, prompts=encoder.role_prompts)


def _texts(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        first = np.arange(min(source.num_rows, TOKENIZER_ROWS))
        yield from (read.text for row in texts_of_rows(source, first, None) for read in row)


def read_config(cfg: DictConfig) -> tuple[RunConfig, InspectConfig]:
    """Split a composed configuration into that of the run and the keys of `inspect`, both checked."""
    values = take_own_keys(cfg, "inspect", example="inspect.rows=5")
    check_targets({"_target_": f"{__name__}.InspectConfig", **values}, "inspect")
    try:
        options = InspectConfig(**values)
    except ConfigError as error:
        raise error.under(f"inspect.{error.key}") from None
    if OmegaConf.is_missing(cfg.encoder, "model"):  # no encoder needs to be named
        cfg.encoder = {"_target_": BUILD_ENCODER}
    return check_config(cfg), options


def main(typed: str | None = None) -> None:
    """Inspect as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="train", typed=typed, settings=_NO_FOLDER)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        run, options = read_config(cfg)
        sampler = HydraConfig.get().runtime.choices["sampler"]
        console = make_console()
        with console.status("looking at the data") if console.is_terminal else nullcontext():
            inspection = inspect_data(run, options, sampler=sampler)
        show(inspection, console)
        if options.output:
            write_json(Path(options.output), inspection.to_dict())
            print_plain(f"all of it as JSON: {options.output}", console=console)
