"""The losses of a run, their guide and their chunks."""

from __future__ import annotations

from typing import Any

from inbatch.migration.data import names_of
from inbatch.migration.draft import Draft, number
from inbatch.migration.encoder import dimension_of
from inbatch.migration.facts import Call, Facts
from inbatch.migration.loss_nodes import node


def set_losses(draft: Draft, facts: Facts) -> None:
    """Set the loss: one for all sources where they have the same, else one for each by its name."""
    named = dict(zip(names_of(facts.train), (source.loss for source in facts.train)))
    kinds = [loss for loss in named.values() if loss is not None]
    if not kinds:
        draft.note("loss: none is told; loss=multiple_negatives_ranking is that of inbatch")
        return
    if all(loss == kinds[0] for loss in named.values()):
        _set_one(draft, kinds[0])
    else:
        draft.choose("loss", None)
        for name, loss in named.items():
            made = node(draft, loss) if loss is not None else None
            draft.set(f"loss.{name}", made or "???")
            if made is None:
                draft.needs[f"loss.{name}"] = (
                    f"a loss in place of {loss.name if loss else 'one that is not told'}"
                )
    for loss in kinds:
        for inner in (loss, loss.get("loss", 1)):
            if isinstance(inner, Call | str):
                _set_chunks(draft, inner if isinstance(inner, Call) else Call(inner))


def _set_one(draft: Draft, loss: Call) -> None:
    made = node(draft, loss)
    if made is None:
        draft.choose("loss", None)
        draft.set("loss", "???")
        draft.needs["loss"] = f"one in place of {loss.name}"
        return
    draft.set("loss", made)


def _set_chunks(draft: Draft, loss: Call) -> None:
    """A cached loss is any loss under gradient caching; a guide is a setting of the run."""
    if loss.name.startswith("Cached"):
        rows, tokens = (
            number(loss.get("mini_batch_size")),
            number(loss.get("mini_batch_num_tokens")),
        )
        if tokens:
            draft.set("gradcache.chunk_tokens", int(tokens))
        else:
            draft.set("gradcache.chunk_size", int(rows or 32))
        draft.set("gradcache.keep_gib", "auto")
    if "GISTEmbed" in loss.name:
        _set_guide(draft, loss.get("guide", 1))
    if loss.name in ("MSELoss", "EmbedDistillLoss"):
        draft.set("guide.model", "???")
        draft.needs["guide.model"] = "the teacher, whose embeddings were labels there"


def _set_guide(draft: Draft, guide: Any) -> None:
    name = guide.get("model_name_or_path", 0) if isinstance(guide, Call) else guide
    if isinstance(name, str) and name and "(" not in name:
        draft.set("guide.model", name)
    else:
        draft.set("guide.model", "???")
        draft.needs["guide.model"] = f"the guide{_layout(guide)}, which is not named"
    if isinstance(guide, Call) and guide.get("trust_remote_code"):
        draft.note(
            "guide: its own code (trust_remote_code) is not run, unless guide.trust_remote_code=true"
        )


def _layout(guide: Any) -> str:
    modules = guide.args if isinstance(guide, Call) else ()
    kinds = [module for module in modules if isinstance(module, Call)]
    if not kinds:
        return ""
    first = kinds[0].options
    dim = dimension_of(kinds)
    length = first.get("max_seq_length")
    return f" ({first.get('architecture', kinds[0].name)}, {dim} dimensions, {length} tokens)"
