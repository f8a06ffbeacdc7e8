"""Finds corpus, queries and judgements in a folder.

A file is called by its part and, where there are several, by a name after it: ``qrels/test.tsv`` and
``qrels.dev.small.tsv`` are the judgements "test" and "dev.small". So these fit:

- BEIR: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/*.tsv``;
- data sets of the hub (MTEB, NanoBEIR) as they are downloaded: ``corpus/*.parquet``, ``queries/*.parquet``,
  also in shards, and judgements in ``qrels``, ``default`` or ``data``;
- MS MARCO: ``collection.tsv``, ``queries.dev.tsv``, ``qrels.dev.tsv``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from inbatch.data.sources.config_keys import RETRIEVAL_PARTS, path_key, to_set
from inbatch.data.sources.files import KINDS
from inbatch.errors import ConfigError
from inbatch.evaluation.plain_tables import TREC_SUFFIXES, suffix_of

_NAMES = {"corpus": ("corpus", "collection"), "queries": ("queries",), "qrels": ("qrels",)}
_QRELS_FOLDERS = ("default", "data")  # of hub data sets
_GIVE = "name the three files, as {corpus: FILE, queries: FILE, qrels: FILE} in place of the folder"
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.|$)")


def find_parts(folder: str, *, split: Sequence[str], field: str) -> dict[str, list[str]]:
    """The files of each part.

    Args:
        folder: where they are.
        split: names of the judgements to take together; none where there is only one.
        field: configuration key of the evaluator, for messages.

    Raises:
        ConfigError: a part is missing or ambiguous, or there are no judgements of a name.
    """
    found = {part: _files(Path(folder), part) for part in RETRIEVAL_PARTS}
    for part, by_name in found.items():
        if not by_name:
            raise ConfigError(
                path_key(field),
                f"holds no file of {part}",
                _GIVE,
                value=folder,
            )
    qrels = _chosen_qrels(found["qrels"], split, folder=folder, field=field)
    texts = {
        part: _chosen_texts(found[part], part, split, folder=folder, field=field)
        for part in ("corpus", "queries")
    }
    return {**texts, "qrels": qrels}


def has_corpus(folder: Path) -> bool:
    """Whether a folder holds the files of a corpus."""
    return folder.is_dir() and bool(_files(folder, "corpus"))


def _files(folder: Path, part: str) -> dict[str, list[str]]:
    """The files of a part by name, shards of one together."""
    suffixes = (*KINDS, *(TREC_SUFFIXES if part == "qrels" else ()))
    places = [path for name in _NAMES[part] for path in folder.glob(f"{name}[._-]*")]
    folders = [folder / name for name in _NAMES[part]]
    if part == "qrels" and not places and not folders[0].is_dir():
        folders = [folder / name for name in _QRELS_FOLDERS]
    places += [path for each in folders for path in each.glob("*")]
    by_name: dict[str, list[str]] = {}
    for path in sorted(path for path in places if path.is_file()):
        suffix = suffix_of(path.name)
        if suffix in suffixes:
            stem = path.name.rpartition(suffix)[0]
            by_name.setdefault(_name(stem, part), []).append(str(path))
    return by_name


def _name(stem: str, part: str) -> str:
    """What a file is called beside its part: "" for ``corpus``, "dev" for ``queries.dev`` and ``dev``."""
    name = _SHARD.sub("", stem)
    for known in _NAMES[part]:
        if name == known or re.match(rf"{known}[._-]", name):
            return name[len(known) + 1 :]
    return name


def _chosen_qrels(
    by_name: Mapping[str, list[str]], split: Sequence[str], *, folder: str, field: str
) -> list[str]:
    names = sorted(by_name)
    if not split and len(names) > 1:
        first = "test" if "test" in names else names[-1]
        raise ConfigError(
            path_key(field),
            f"holds several judgements ({', '.join(names)})",
            f"say which to use, as {to_set(field, f'split={first}')}",
            value=folder,
        )
    for name in split:
        if name not in by_name:
            raise ConfigError(
                f"{field}.split",
                f"is not among the judgements of {folder}",
                f"set one of {', '.join(filter(None, names))}" if any(names) else "leave it out",
                value=name,
            )
    chosen = [by_name[name] for name in split or names]
    for files in chosen:
        _check_shards(files, "qrels", folder=folder, field=field)
    return [path for files in chosen for path in files]


def _chosen_texts(
    by_name: Mapping[str, list[str]], part: str, split: Sequence[str], *, folder: str, field: str
) -> list[str]:
    """The only files, those named like the judgements, or those without a name."""
    names = list(by_name) if len(by_name) == 1 else [name for name in split if name in by_name]
    if not names and "" in by_name:
        names = [""]
    if not names:
        every = [path for files in by_name.values() for path in files]
        raise _ambiguous(every, part, folder=folder, field=field)
    for name in names:
        _check_shards(by_name[name], part, folder=folder, field=field)
    return [path for name in names for path in by_name[name]]


def _check_shards(files: Sequence[str], part: str, *, folder: str, field: str) -> None:
    """Refuse several files of one name that are not the numbered shards of one."""
    if len(files) > 1 and not all(_SHARD.search(Path(path).name) for path in files):
        raise _ambiguous(files, part, folder=folder, field=field)


def _ambiguous(files: Sequence[str], part: str, *, folder: str, field: str) -> ConfigError:
    return ConfigError(
        path_key(field),
        f"holds several files of {part} ({', '.join(files)})",
        _GIVE,
        value=folder,
    )
