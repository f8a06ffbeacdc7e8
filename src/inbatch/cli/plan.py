"""`inbatch plan`: the configuration of a run, and rates -> a step on 1 to 1,024 ranks: time, memory, traffic.

It takes the command line of the training run, and `plan.<key>=value` for the keys of `PlanConfig`. Nothing is
trained: model and data are looked at for their sizes. All figures are computed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.cli.own_keys import take_own_keys
from inbatch.config.check import RunConfig, check_config
from inbatch.config.instantiate import instantiate
from inbatch.config.targets import check_targets
from inbatch.console import make_console, print_plain
from inbatch.errors import ConfigError
from inbatch.forecast.rates import Rates, of_card, of_doctor
from inbatch.forecast.scaling import GATHERS, MOST_RANKS, Work, forecast, largest_batch
from inbatch.forecast.show import lines, plot_steps, write_steps
from inbatch.forecast.step_time import STRATEGIES
from inbatch.run import build as parts_of
from inbatch.run.auto_sizes import model_size, optimizer_states, texts_per_row, tokens_per_row
from inbatch.run.quiet import quiet
from inbatch.strategies import Auto

TABLE, PLOT = "plan.csv", "plan.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """Keys of `plan`.

    Args:
        rates: a doctor.json, or a card: a100, h100, h200, b200, l40s or 4090.
        ranks: the most ranks, from 1 on in powers of two.
        far_gbit_per_s: of the network between nodes for each GPU of a card; null for what is usual.
        output: folder for the table of all figures and the plot.
    """

    rates: str = ""
    ranks: int = MOST_RANKS
    far_gbit_per_s: float | None = None
    output: str = "outputs/plan"

    def __post_init__(self) -> None:
        if not self.rates:
            raise ConfigError(
                "rates", "has no value", "name a card or a file, as plan.rates=h100 or doctor.json"
            )
        if self.ranks < 1:
            raise ConfigError("ranks", "is too small", "set at least 1", value=self.ranks)


def plan(run: RunConfig, options: PlanConfig) -> Path:
    """Print the forecast of a checked configuration; return the folder with all of it.

    Raises:
        ConfigError: rates, data or a model that cannot be read.
    """
    rates = read_rates(options)
    work = work_of(run, rates)
    steps = list(forecast(work, rates, most_ranks=options.ranks))
    console, output = make_console(), Path(options.output)
    print_plain(
        f"computed for {rates.name}: {work.global_rows:,} rows x {work.num_columns:.3g} texts of "
        f"{work.text_tokens:.0f} tokens, {work.model.parameters:,} parameters, {work.precision}",
        console=console,
    )
    for line in lines(steps):
        print_plain(line, console=console)
    print_plain("", console=console)
    for line in batch_lines(work, rates, options.ranks):
        print_plain(line, console=console)
    output.mkdir(parents=True, exist_ok=True)
    write_steps(steps, output / TABLE)
    plot_steps(steps, output / PLOT, title=f"{work.global_rows:,} rows on {rates.name}")
    return output


def batch_lines(work: Work, rates: Rates, most_ranks: int) -> list[str]:
    """The largest batches that fit, on a node and on all ranks."""
    gathers = GATHERS if work.num_blocks else GATHERS[:1]
    found = []
    for ranks in dict.fromkeys((1, min(rates.ranks_per_node, most_ranks), most_ranks)):
        sizes = {
            f"{strategy}, {gather}": largest_batch(
                work, rates, ranks=ranks, strategy=strategy, gather=gather
            )
            for strategy in (STRATEGIES if ranks > 1 else ("ddp",))
            for gather in (gathers if ranks > 1 else GATHERS[:1])
        }
        most = max(sizes.values())
        names = [name for name, size in sizes.items() if size == most]
        whose = "" if ranks == 1 else f" ({'; '.join(names)})"
        found.append(
            f"{ranks:,} ranks fit {most:,} rows{whose}" if most else f"{ranks:,}: none fit"
        )
    return found


def read_rates(options: PlanConfig) -> Rates:
    """Rates of a file, or of a card.

    Raises:
        ConfigError: neither is there.
    """
    path = Path(options.rates)
    if not path.is_file():
        return of_card(options.rates, far_gbit_per_s=options.far_gbit_per_s)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            "plan.rates", f"is not JSON ({error})", "write it with inbatch doctor", value=str(path)
        ) from None
    return of_doctor(found, name=str(path))


def work_of(run: RunConfig, rates: Rates) -> Work:
    """The numbers of a run: of its model, and of the source whose batches are largest."""
    parts_of.generate_data(run.data)
    sources = parts_of.load_sources(run.data.train, cache_dir=run.data.cache_dir)
    encoder = parts_of.make_encoder(run.encoder, sources)
    mixed, guided = bool(run.sampler.get("mixed")), run.guide.model is not None
    sources, losses = parts_of.make_losses(run.loss, sources, guided=guided, mixed=mixed)
    sizes = parts_of.batch_sizes(run.global_batch_size, run.sampler.get("batch_sizes"), sources)
    tokens = {source.name: tokens_per_row(source, encoder) for source in sources}
    source = max(sources, key=lambda each: sizes[each.name] * tokens[each.name])
    loss = losses[source.name]
    guide = parts_of.make_guide(run.guide, sources, losses, accelerator=rates.device)
    precision = run.precision
    if precision == "auto":
        precision = "bf16" if rates.native_bf16 else "fp32"
    texts = texts_per_row(source)
    return Work(
        model=model_size(encoder),
        device=rates.device,
        global_rows=sizes[source.name],
        num_columns=texts,
        text_tokens=tokens[source.name] / texts,
        guide_dimension=guide.dimension if guide is not None and loss.needs_guide else 0,
        num_blocks=math.ceil(texts) + 1 if loss.scope == "candidates" else 0,
        max_length=encoder.tokenizer.max_length,
        chunk_tokens=run.gradcache.chunk_tokens,
        keep_gib=run.gradcache.keep_gib,
        optimizer_states=optimizer_states(instantiate(run.optimizer), Auto()),
        precision=precision,
        averaged=run.ema.decay is not None,
    )


def read_config(cfg: DictConfig) -> tuple[RunConfig, PlanConfig]:
    """Split a composed configuration into that of the run and the keys of `plan`, both checked."""
    values = {"rates": "", **take_own_keys(cfg, "plan", example="plan.rates=CARD")}
    values["rates"] = str(values["rates"])  # 4090 is a name
    check_targets({"_target_": f"{__name__}.PlanConfig", **values}, "plan")
    try:
        options = PlanConfig(**values)
    except ConfigError as error:
        raise error.under(f"plan.{error.key}") from None
    return check_config(cfg), options


def main(typed: str | None = None) -> None:
    """Plan as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="train", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        output = plan(*read_config(cfg))
        print_plain(f"all figures: {output / TABLE}, {output / PLOT}", console=make_console())
