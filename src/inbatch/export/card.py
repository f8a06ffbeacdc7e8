"""The model card: `CardData` -> README.md.

The YAML header (`card_header`) is what the hub and its tools read. The body (`model_card.md.j2`) is
for people; `card_usage` and `card_sections` make its code and tables. Headings are those that
sentence-transformers writes, so that readers and tools find what they know.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template

from inbatch.export import card_sections as sections
from inbatch.export import markdown as md
from inbatch.export.card_data import CardData, DatasetName, SourceCard, has_roles
from inbatch.export.card_header import header, hub_id
from inbatch.export.card_usage import usage_code
from inbatch.export.citations import citations
from inbatch.files import write_text, writing

_SIMILARITIES = {
    "cosine": "Cosine Similarity",
    "dot": "Dot Product",
    "euclidean": "Euclidean Distance",
    "manhattan": "Manhattan Distance",
}
_PACKAGES = {
    "inbatch": "inbatch",
    "Sentence Transformers": "sentence-transformers",
    "Transformers": "transformers",
    "PyTorch": "torch",
    "Lightning": "lightning",
    "Datasets": "datasets",
    "Tokenizers": "tokenizers",
}


def render(card: CardData) -> str:
    """The whole README.md."""
    return f"---\n{header(card).to_yaml()}\n---\n\n{_template().render(_fields(card))}"


@cache
def _template() -> Template:
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters.update(inline=md.inline, code_span=md.code_span)
    source = files("inbatch.export").joinpath("model_card.md.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


def write_card(card: CardData, model_dir: str | Path, *, plots: Sequence[Path] = ()) -> Path:
    """Write `README.md` into a model's directory, and the images it shows into `plots/` beside it.

    Args:
        card: what to write.
        model_dir: an existing directory.
        plots: images of the run, shown beside those that `card.plots` names.

    Returns:
        The path of the card; a reader never sees half of it.
    """
    model_dir = Path(model_dir)
    for plot in plots:
        target = model_dir / "plots" / plot.name
        if not (target.exists() and target.samefile(plot)):
            with writing(target):
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(plot, target)
    shown = dict.fromkeys([*card.plots, *(f"plots/{plot.name}" for plot in plots)])
    path = model_dir / "README.md"
    write_text(path, render(replace(card, plots=tuple(shown))))
    return path


def framework_versions() -> dict[str, str]:
    """Versions of Python and of the packages in use; those that are not installed are left out."""
    versions = {"Python": platform.python_version()}
    for name, package in _PACKAGES.items():
        try:
            versions[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _fields(card: CardData) -> dict[str, Any]:
    path_end = (card.base_model or "").rstrip("/").rsplit("/", maxsplit=1)[-1]
    names = [_source_link(source) for source in card.sources]
    published = [
        part for source in card.sources for part in (source.published, *source.cited) if part
    ]
    cached = card.gradient_caching
    return {
        "card": card,
        "encoder": card.encoder,
        "title": md.inline(card.model_name),
        "base_id": hub_id(card.base_model),
        "base_name": md.inline(card.base_name or path_end),  # the rest of a path is private
        "datasets": {"Training": card.sources, "Evaluation": card.evaluation_sources},
        "source_names": md.join(names) if len(names) <= 5 else f"{len(names)} datasets",
        "similarity": _SIMILARITIES[card.encoder["similarity"]],
        "prompts": _prompts(card.encoder),
        "role_prompts": _role_prompts(card.encoder),
        "architecture": md.fenced(card.encoder["architecture"]),
        "usage": usage_code(card),
        "evaluations": sections.evaluation_blocks(card.evaluations),
        "source_title": lambda source: md.inline(source.name) or "Unnamed Dataset",
        "source_link": _source_link,
        "columns": lambda source: md.join([md.code_cell(name) for name in source.columns]),
        "stats_table": sections.stats_table,
        "samples_table": sections.samples_table,
        "loss_text": partial(sections.loss_text, cached=cached),
        "changed_settings": sections.settings_list(card.non_default_hyperparameters),
        "all_settings": sections.settings_list(card.hyperparameters),
        "log": sections.log_table(card),
        "plots": [(_plot_title(path), quote(path)) for path in card.plots],
        "times": _times(card),
        "hardware": _hardware(card),
        "cost": [] if card.cost is None else sections.cost_list(card.cost),
        "merge": None if card.merge is None else sections.merge_block(card.merge),
        "citations": citations(
            published, cached=cached, merged=None if card.merge is None else card.merge.method
        ),
    }


def _source_link(source: SourceCard) -> str:
    return sections.dataset_link(DatasetName(source.name, source.hub_id, source.revision))


def _prompts(encoder: Mapping[str, Any]) -> str:
    prompts = {name: text for name, text in encoder.get("prompts", {}).items() if text}
    return ", ".join(
        f"{md.code_span(name)}: {md.code_span(repr(text))}" for name, text in prompts.items()
    )


def _role_prompts(encoder: Mapping[str, Any]) -> dict[str, str] | None:
    """The prompts of queries and documents, in words."""
    if not has_roles(encoder):
        return None
    prompts = encoder["prompts"]
    document = next(
        (prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), ""
    )
    shown = {"query": prompts.get("query", ""), "document": document}
    return {role: md.code_span(repr(text)) if text else "nothing" for role, text in shown.items()}


def _plot_title(path: str) -> str:
    return md.inline(Path(path).stem.replace("_", " ").capitalize())


def _times(card: CardData) -> list[tuple[str, str]]:
    parts = {"Training": card.training_time_s, "Evaluation": card.evaluation_time_s}
    known = [(name, seconds) for name, seconds in parts.items() if seconds is not None]
    if len(known) == 2:
        known.append(("Total", sum(seconds for _, seconds in known)))
    return [(name, sections.in_words(seconds)) for name, seconds in known]


def _hardware(card: CardData) -> list[tuple[str, str]]:
    """The hardware of the run by name; empty if it is not known."""
    if card.hardware is None:
        return []
    rows = {
        "Hardware": card.hardware,
        "Processes": str(card.world_size),
        "Strategy": card.strategy,
        "Precision": card.precision,
        "Global batch size": str(card.global_batch_size) if card.global_batch_size else None,
    }
    return [(name, md.inline(value)) for name, value in rows.items() if value]
