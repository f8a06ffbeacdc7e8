"""What may be written for an evaluation set of corpus, queries and judgements.

It is a folder or the three files, ``{corpus: FILE, queries: FILE, qrels: FILE}``. Either may have further
keys, as in ``{path: FOLDER, split: test}``: those of OPTIONS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbatch.data.sources.columns import suggest
from inbatch.data.sources.config_keys import RETRIEVAL_KEYS, RETRIEVAL_PARTS, path_key
from inbatch.errors import ConfigError
from inbatch.evaluation.retrieval_folder import find_parts
from inbatch.evaluation.rows import check_limit

OPTIONS = (*RETRIEVAL_KEYS, "split", "limit", "columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSpec:
    """Files of corpus, queries and judgements, and how they count.

    Args:
        files: paths or globs by part.
        columns: names of columns by the keys of `InformationRetrievalEvaluator`, and templates.
        limit: the first queries only.
        exclude_same_id: no query finds the document that has its own id.
        graded: gains of the nDCG are the grades.
    """

    files: Mapping[str, Any]
    columns: Mapping[str, Any]
    limit: int | None
    exclude_same_id: bool
    graded: bool


def is_retrieval(path: object) -> bool:
    """Whether `path` names corpus, queries and judgements; if not, it names rows."""
    if isinstance(path, Mapping):
        return bool(set(path) & set(RETRIEVAL_PARTS)) or is_retrieval(path.get("path"))
    return isinstance(path, str | Path) and Path(path).is_dir()


def retrieval_spec(path: Any, *, field: str, **given: Any) -> RetrievalSpec:
    """What `path`, for which `is_retrieval` holds, and further options say together.

    Args:
        path: a folder, the three files, or either with OPTIONS as further keys.
        field: configuration key of the evaluator, for messages.
        given: OPTIONS that are given beside `path`; None or False for those that are not.

    Raises:
        ConfigError: an unknown key, one given twice, a value that none of them takes, or files that are not
            found.
    """
    keys = dict(path) if isinstance(path, Mapping) else {"path": path}
    places = RETRIEVAL_PARTS if set(keys) & set(RETRIEVAL_PARTS) else ("path",)
    for key in keys:
        if key not in (*places, *OPTIONS):
            known = [*places, *OPTIONS]
            raise ConfigError(f"{field}.{key}", "is not a valid key", suggest(str(key), known))
    if missing := [part for part in places if keys.get(part) is None]:
        raise ConfigError(
            path_key(field),
            f"has no {' and no '.join(missing)}",
            f"give {', '.join(RETRIEVAL_PARTS)}",
        )
    options: dict[str, Any] = {}
    for key in OPTIONS:
        inner, outer = keys.get(key), given.get(key)
        outer = None if outer is False else outer
        if inner is not None and outer is not None:
            raise ConfigError(
                f"{field}.{key}", f"is given inside {path_key(field)} too", "keep one of them"
            )
        options[key] = outer if inner is None else inner
    for key in ("exclude_same_id", "graded"):
        if not isinstance(options[key], bool | None):
            raise ConfigError(
                f"{field}.{key}", "is not true or false", "set one of them", value=options[key]
            )
    return RetrievalSpec(
        files=_files(keys, places, _names(options["split"]), field=field),
        columns=dict(options["columns"] or {}),
        limit=check_limit(options["limit"], field=field),
        exclude_same_id=bool(options["exclude_same_id"]),
        graded=bool(options["graded"]),
    )


def _files(
    keys: Mapping[str, Any], places: Sequence[str], split: Sequence[str], *, field: str
) -> Mapping[str, Any]:
    if places == RETRIEVAL_PARTS:
        if split:
            raise ConfigError(
                f"{field}.split",
                "chooses among the judgements of a folder, and the files are named here",
                "leave it out",
                value=list(split),
            )
        return {part: keys[part] for part in RETRIEVAL_PARTS}
    return find_parts(str(keys["path"]), split=split, field=field)


def _names(split: str | Sequence[str] | None) -> tuple[str, ...]:
    if split is None:
        return ()
    return (split,) if isinstance(split, str) else tuple(str(name) for name in split)
