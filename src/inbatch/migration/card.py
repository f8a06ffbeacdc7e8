"""Model cards of sentence-transformers and of inbatch; also edited ones, and without their line breaks.

A card is read as one line: headings, lists and tables are found by their marks, not by their lines, so that
a card that was pasted through something that joined its lines says the same.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import yaml

from inbatch.errors import ConfigError
from inbatch.migration import literals
from inbatch.migration.facts import Call, DatasetFacts, EvaluatorFacts, Facts
from inbatch.migration.old_card import read_fit

_HEADINGS = (
    *("Model Details", "Model Description", "Model Sources", "Full Model Architecture", "Usage"),
    *(
        "Evaluation",
        "Metrics",
        "Bias, Risks and Limitations",
        "Recommendations",
        "Training Details",
    ),
    *("Training Datasets?", "Evaluation Datasets?", "Training Hyperparameters", "Training Curves"),
    *("Non-Default Hyperparameters", "All Hyperparameters", "Training Logs", "Training Time"),
    *("Environmental Impact", "Training Hardware", "Framework Versions", "Citation", "Glossary"),
    *("Training procedure", "Training results", "Training", "Direct Usage.{0,30}?", "Merge"),
    *("Evaluation Results", "Citing & Authors", "Additional Resources", "BibTeX", "Limitations"),
)
_HEADING = re.compile(rf"(?:^| )#{{1,6}} ({'|'.join(_HEADINGS)})(?= |$)", re.IGNORECASE)
_NAME = r"`?([a-z][a-z0-9_]*(?:\.[\w-]+)*)`?"
_ITEM = re.compile(
    rf"(?:^|\s)[-*] {_NAME} ?[:=](?: (.*?))?(?=\s[-*] {_NAME} ?[:=]|\s?</?details|$)"
)
_REVISION = re.compile(r"<!-- at revision ([0-9a-f]{7,40}) -->")
_COMMENT = re.compile(r"<!--.*?-->")
_LINK = re.compile(r"\[(.+?)\]\(([^)]*)\)")
_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
# The Trainer of transformers writes other names into its own cards.
_ALIASES = {
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "num_epochs": "num_train_epochs",
    "training_steps": "max_steps",
    "lr_scheduler_warmup_ratio": "warmup_ratio",
    "lr_scheduler_warmup_steps": "warmup_steps",
}


def read_card(text: str) -> Facts:
    """What a card tells."""
    header, body = _header(text)
    flat = " ".join(body.split())
    other = re.search(r"\*\*Model Type:\*\* (Cross|Sparse|Multi-?[Vv]ector|Late)\b", flat)
    if other or flat.startswith("# CrossEncoder"):
        raise ConfigError(
            "the card",
            "is of a cross-encoder or a sparse encoder",
            "import the card of a bi-encoder",
        )
    revision = _REVISION.search(flat)
    flat = _COMMENT.sub(" ", flat)
    parts = _sections(flat)
    facts = Facts(
        base_model=_base_model(header, flat),
        base_revision=revision[1] if revision else None,
        modules=_modules(parts.get("full model architecture", flat)),
        language=_texts(header.get("language")),
        license=_first(header.get("license")),
        train=[*_datasets(parts, "training dataset")],
        eval=[*_datasets(parts, "evaluation dataset")],
        evaluators=[*_evaluators(parts)],
        evaluated_at=_evaluated_at(parts.get("training logs", "")),
    )
    facts.max_length = _number(re.search(r"Maximum Sequence Length:\W*([\d,]+)", flat))
    similarity = re.search(r"Similarity Function:\W*(\w+)", flat)
    named = similarity[1].lower() if similarity else None
    facts.similarity = named if named in _SIMILARITIES else None
    _read_arguments(facts, parts)
    read_fit(facts, parts.get("training", ""))
    if not (facts.modules or facts.arguments or facts.train):
        facts.notes.append("nothing of a training was found in the card")
    return facts


def _header(text: str) -> tuple[dict[str, Any], str]:
    """The YAML header, of which a card without line breaks has only what patterns find, and the rest."""
    text = text.lstrip("\ufeff \n\r\t")
    match = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)(.*)", text, re.DOTALL)
    if match:
        try:
            found = yaml.safe_load(match[1])
        except yaml.YAMLError:
            found = None
        if isinstance(found, dict):
            return found, match[2]
    found = {}
    for key in ("base_model", "license", "language"):
        value = re.search(rf"(?:^|\s){key}:\s*(?:-\s*)?([\w./-]+)(?=\s|$)", text[:4000])
        if text.startswith("---") and value:
            found[key] = value[1]
    return found, text


def _sections(flat: str) -> dict[str, str]:
    """Texts below headings, by their names in small letters, singular; of two of one name the longer."""
    places = [*_HEADING.finditer(flat)]
    ends = [match.start() for match in places[1:]] + [len(flat)]
    found: dict[str, str] = {}
    for match, end in zip(places, ends):
        name = (
            match[1].lower().removesuffix("s")
            if "dataset" in match[1].lower()
            else match[1].lower()
        )
        text = flat[match.end() : end].strip()
        if len(text) >= len(found.get(name, "")):
            found[name] = text
    return found


def _base_model(header: dict[str, Any], flat: str) -> str | None:
    named = _first(header.get("base_model"))
    match = re.search(r"\*\*Base [Mm]odel:?\*\*:? *(?:\[([^\]]+)\]|`([^`]+)`|(\S+))", flat)
    found = named or (next(filter(None, match.groups())) if match else None)
    if found is None:
        match = re.search(r"finetuned from (?:\[([^\]]+)\]\(|(\S+/\S+))", flat)
        found = next(filter(None, match.groups())) if match else None
    return None if found in (None, "Unknown", "unknown") else str(found)


def _modules(text: str) -> list[Call]:
    start = text.find("SentenceTransformer(")
    if start < 0:
        return []
    end = literals.closing(text, start + len("SentenceTransformer"))
    return [*literals.modules(text[start + len("SentenceTransformer(") : end])]


def _datasets(parts: dict[str, str], name: str) -> Iterator[DatasetFacts]:
    text = parts.get(name, "")
    heads = [*re.finditer(r"(?:^|\s)#### (?:<summary>)?(.{1,200}?) (?=\* )", text)]
    ends = [match.start() for match in heads[1:]] + [len(text)]
    for match, end in zip(heads, ends):
        yield _dataset(match[1].strip(), text[match.end() : end])
    if not heads and "Columns:" in text:
        yield _dataset("", text)


def _dataset(name: str, text: str) -> DatasetFacts:
    named = re.search(r"\* Dataset: (.{0,400}?)(?= \* |$)", text)
    link = _LINK.search(named[1]) if named else None
    page = r"https://huggingface\.co/datasets/([^/]+(?:/[^/]+)?)"
    hub = re.fullmatch(page, link[2]) if link else None
    revision = re.search(r"/tree/([0-9a-f]{7,40})\)", named[1]) if named else None
    columns = re.search(r"\* Columns: (.*?)(?= \* |$)", text)
    loss = re.search(r"\* Loss: (.*)", text)
    return DatasetFacts(
        name="" if name.lower().startswith("unnamed") else name,
        hub=hub[1] if hub else None,
        revision=revision[1] if revision and hub else None,
        size=_number(re.search(r"\* Size: ([\d,]+)", text)),
        columns=_names(columns[1]) if columns else (),
        loss=_loss(loss[1]) if loss else None,
    )


def _names(text: str) -> tuple[str, ...]:
    """Column names, in code or, where a page has lost that, between commas."""
    coded = re.findall(r"<code>(.*?)</code>|`([^`]+)`", text)
    if coded:
        return tuple(html.unescape(one or other) for one, other in coded)
    return tuple(filter(None, (part.strip() for part in re.split(r",\s*and |,| and ", text))))


def _loss(text: str) -> Call | None:
    name = re.match(r"\[?(?:<code>|`)?([\w.]+)", text)
    if name is None:
        return None
    start = text.find("{")
    fence = text.find("```")
    has_options = 0 <= fence < start and "with these parameters" in text[:fence]
    options = (
        literals.mapping(text[start : literals.closing(text, start) + 1]) if has_options else {}
    )
    for key, value in options.items():  # JSON has modules as texts
        options[key] = (literals.call(value) or value) if isinstance(value, str) else value
    return Call(name[1].rpartition(".")[2], (), options)


def _evaluators(parts: dict[str, str]) -> Iterator[EvaluatorFacts]:
    text = parts.get("metrics") or parts.get("evaluation") or ""
    heads = [*re.finditer(r"Evaluated with \[?(?:<code>|`)?([\w.]+)", text)]
    starts = [0] + [text.rfind("#### ", 0, match.start()) for match in heads[1:]]
    for match, start, end in zip(heads, starts, [*starts[1:], len(text)]):
        before, after = text[max(start, 0) : match.start()], text[match.end() : end]
        named = re.search(r"\* Datasets?: (.*?)(?=\* |$)", before)
        names = re.findall(r"`([^`]+)`", named[1]) if named else []
        if named and not names:  # where a page has lost the marks of code
            names = [*_names(named[1])]
        options = after[after.find("{") :] if "with these parameters" in after[:120] else ""
        yield EvaluatorFacts(
            kind=match[1].rpartition(".")[2],
            names=tuple(names) or ("",),
            options=literals.mapping(options[: literals.closing(options, 0) + 1])
            if options
            else {},
            metrics=tuple(dict.fromkeys(re.findall(r"\| \**([a-z][\w@]*)\** +(?=\|)", after))),
        )


def _evaluated_at(text: str) -> list[tuple[float, int]]:
    """Epoch and step of the rows of the log that hold more than the loss of training."""
    cells = [cell.strip().strip("*") for cell in text.split("|")]
    cells = [cell for cell in cells if cell]
    rule = next((k for k, cell in enumerate(cells) if re.fullmatch(r":?-+:?", cell)), 0)
    header = [cell.lower() for cell in cells[:rule]][-rule:]
    if header[:2] != ["epoch", "step"]:
        return []
    kept = [k for k, name in enumerate(header) if k > 1 and name != "training loss"]
    found, rows = [], cells[2 * rule :]
    for start in range(0, len(rows) - rule + 1, rule):
        row = rows[start : start + rule]
        try:
            epoch, step = float(row[0]), int(row[1].replace(",", ""))
        except ValueError:
            break
        if any(row[k] != "-" for k in kept):
            found.append((epoch, step))
    return found


def _read_arguments(facts: Facts, parts: dict[str, str]) -> None:
    listed = {
        name: _items(parts.get(name, ""))
        for name in (
            "non-default hyperparameters",
            "all hyperparameters",
            "training hyperparameters",
        )
    }
    non_default = listed["non-default hyperparameters"]
    found = {**listed["training hyperparameters"], **listed["all hyperparameters"], **non_default}
    if "loss._target_" in found or "global_batch_size" in found:
        chosen = [
            key for key in found if not non_default or key in non_default or "_target_" in key
        ]
        facts.own = {key: _own_value(found[key]) for key in chosen}
        return
    if non_default:
        facts.non_default = frozenset(non_default)
    facts.arguments = {
        _ALIASES.get(key, key): literals.literal(value) for key, value in found.items()
    }
    optimizer = found.get("optimizer", "")
    if betas := re.search(r"betas=\(([\d.]+), ?([\d.]+)\)", optimizer):
        facts.arguments |= {"adam_beta1": float(betas[1]), "adam_beta2": float(betas[2])}
    if eps := re.search(r"epsilon=([\d.e-]+)", optimizer):
        facts.arguments["adam_epsilon"] = float(eps[1])
    if kind := re.search(r"\b(adamw\w*|adafactor|sgd|adagrad|rmsprop)\b", optimizer.lower()):
        facts.arguments["optim"] = kind[1]
    if "native amp" in found.get("mixed_precision_training", "").lower():
        facts.arguments.setdefault("fp16", True)
    for key in ("optimizer", "mixed_precision_training", "total_train_batch_size"):
        facts.arguments.pop(key, None)


def _items(text: str) -> dict[str, str]:
    """``- `name`: value`` by name."""
    return {match[1]: (match[2] or "").strip() for match in _ITEM.finditer(text)}


def _own_value(text: str) -> Any:
    """What a card of inbatch has escaped for Markdown."""
    return literals.literal(html.unescape(re.sub(r"\\(?=[\\`*\[\]~$_])", "", text)))


def _number(match: re.Match[str] | None) -> int | None:
    return int(match[1].replace(",", "")) if match else None


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(each) for each in values if each not in (None, "", "[]")]


def _first(value: Any) -> str | None:
    return next(iter(_texts(value)), None)
