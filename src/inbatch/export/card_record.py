"""What the card of a run says, as `card.json` beside its result, and the card again from it.

card    the fields of `CardData`, without secrets
sha256  of the card as it was written, so that one edited by hand is known
step    of the model beside it; null where the model does not say
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from inbatch.errors import ConfigError
from inbatch.export.card import write_card
from inbatch.export.card_data import CardData
from inbatch.export.redaction import redact
from inbatch.files import write_text
from inbatch.folder.model import step_of
from inbatch.folder.paths import RunFolder

_TRAIN = "let the run end (its command goes on), or give one that has ended with this version"


def write_run_card(card: CardData, folder: RunFolder, *, plots: Sequence[Path] = ()) -> Path:
    """Write the card of a run's model, and what it says into `card.json`.

    Args:
        card, plots: as in `write_card`.
        folder: of the run.

    Returns:
        The path of the card.
    """
    path = write_card(card, folder.model, plots=plots)
    _record(replace(card, plots=[f"plots/{plot.name}" for plot in plots]), folder, path)
    return path


def rewrite_run_card(folder: RunFolder, *, overwrite: bool = False) -> Path:
    """Write the card of a finished run again, from what its directory holds.

    Args:
        folder: of the run.
        overwrite: also in place of a card that was edited.

    Returns:
        The path of the card.

    Raises:
        ConfigError: something that it needs is missing, the model is of another step, or the card was edited.
    """
    card, record = _read(folder)
    _check_model(folder, record)
    path = folder.model / "README.md"
    if path.is_file() and not overwrite and _digest(path) != record["sha256"]:
        raise ConfigError(
            str(path), "was edited since the run wrote it", "add --overwrite to lose the edits"
        )
    plots = [folder.plots / Path(plot).name for plot in card.plots]
    absent = [str(plot) for plot in plots if not plot.is_file()]
    if absent:
        raise ConfigError(absent[0], "is shown by the card and missing", "put it back")
    path = write_card(card, folder.model, plots=plots)
    _record(card, folder, path)
    return path


def as_fields(card: CardData) -> dict[str, Any]:
    """The fields of a card, nested, without secrets in its settings."""
    hidden = {
        name: redact(getattr(card, name))
        for name in ("hyperparameters", "non_default_hyperparameters")
    }
    sources = [replace(each, loss_parameters=redact(each.loss_parameters)) for each in card.sources]
    return asdict(replace(card, sources=sources, **hidden))


def as_json(value: Any) -> str:
    """Indented JSON; what it has no form for becomes text, as a card prints it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def from_fields(fields: Mapping[str, Any]) -> CardData:
    """A card from its fields as JSON has them, numbers and texts as they were.

    Raises:
        KeyError, TypeError, ValueError: they are not those of a card.
    """
    return _typed(CardData, fields)


def _record(card: CardData, folder: RunFolder, path: Path) -> None:
    record = {"sha256": _digest(path), "step": step_of(folder.model), "card": as_fields(card)}
    write_text(folder.card, f"{as_json(record)}\n")


def _read(folder: RunFolder) -> tuple[CardData, dict[str, Any]]:
    try:
        record = json.loads(folder.card.read_text(encoding="utf-8"))
        return from_fields(record["card"]), {name: record[name] for name in ("sha256", "step")}
    except OSError:
        problem = f"holds no {folder.card.name}, which a run writes when it ends"
        raise ConfigError("RUN_DIR", problem, _TRAIN, value=str(folder.path)) from None
    except (KeyError, TypeError, ValueError) as error:
        problem = f"does not hold what a card says ({type(error).__name__}: {error})"
        raise ConfigError(str(folder.card), problem, _TRAIN) from None


def _check_model(folder: RunFolder, record: Mapping[str, Any]) -> None:
    if not folder.model.is_dir():
        raise ConfigError(
            "RUN_DIR", "holds no model", "give a run whose model is there", value=str(folder.path)
        )
    step = step_of(folder.model)
    if step != record["step"]:
        raise ConfigError(
            str(folder.model),
            f"is of step {step}, and {folder.card.name} of step {record['step']}",
            "let the run end, which writes both",
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _typed(kind: Any, value: Any) -> Any:
    """Plain values as the dataclasses, named tuples and sequences of them that a type says."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{name: _typed(types[name], each) for name, each in value.items()})  # type: ignore[operator]
    if isinstance(kind, type) and hasattr(kind, "_fields"):
        return kind(*value)
    if origin is UnionType and value is not None:
        (one, *others) = [each for each in args if each is not NoneType]
        return value if others else _typed(one, value)
    if origin is Sequence:
        return [_typed(args[0], each) for each in value]
    if origin is Mapping:
        return {name: _typed(args[1], each) for name, each in value.items()}
    return value
