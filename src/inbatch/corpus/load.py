"""Configuration -> texts: columns of files or of a hub data set, checked once, read by number.

As for training, a memory-mapped copy of the columns in use is kept by `datasets`; so windows of any number
of texts are read without holding more than one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, final

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.corpus.texts import KEYS, TextKeys, Texts
from inbatch.data.formats.passages import TITLE_AND_TEXT
from inbatch.data.formats.template import fill, template_columns
from inbatch.data.sources.checks import Place, drop_rows, is_blank, refuse_row
from inbatch.data.sources.columns import Roles, suggest
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.dropped import BAD_ROW, Dropped, count_marks
from inbatch.data.sources.files import load_files, load_hub, peek_columns, resolve_files
from inbatch.data.sources.lists import is_text
from inbatch.data.sources.spec import SourceSpec, parse_spec
from inbatch.data.sources.table import not_utf8
from inbatch.data.sources.tables import TEXT_KINDS, Files
from inbatch.data.sources.texts import plain
from inbatch.errors import ConfigError

#: Keys of a source that texts have too.
SPEC_KEYS = (
    *("path", "hub", "subset", "split", "revision", "limit", "csv", "on_bad_row", "on_empty"),
)
# Columns that are recognised, the first before the others.
_TEXT_NAMES = (
    "text",
    "contents",
    "content",
    "document",
    "passage",
    "sentence",
    "query",
    "question",
)
_ID_NAMES = ("_id", "id", "doc_id", "docid", "document_id", "pid", "query_id", "qid")


class Corpus(NamedTuple):
    """Texts of a source.

    texts: what is embedded.
    ids: of an id column, or the numbers of the rows where some were left out; else None.
    read_as: which columns the texts are, for people.
    dropped: rows that were left out, by reason.
    """

    texts: Texts
    ids: Texts | None
    read_as: str
    dropped: tuple[Dropped, ...]


class _Columns(NamedTuple):
    """Columns of a table: those of a text, its template, and that of its id."""

    texts: tuple[str, ...]
    template: str
    id: str | None

    @property
    def roles(self) -> Roles:
        """Roles that only say which columns to load."""
        used = dict.fromkeys([*self.texts, *filter(None, [self.id])])
        first, *rest = used
        return Roles(first, rest[-1] if rest else first, negatives=tuple(rest[:-1]))


def load_texts(
    value: Any,
    columns: Mapping[str, Any],
    *,
    cache_dir: str | None = None,
    keys: TextKeys = KEYS,
) -> Corpus:
    """The texts that a configuration names.

    Args:
        value: files, or the keys of a source in `SPEC_KEYS`.
        columns: ``text``, a column or a template such as ``{title} {text}``, and ``keys.id``, a column or
            null for none; those that are not named are recognised by their names.
        cache_dir: where copies are kept; None for the default of `datasets`.
        keys: under which they stand.

    Raises:
        ConfigError: anything about keys, files, columns or rows that cannot be used.
    """
    for key in value if isinstance(value, Mapping) else ():
        if key not in SPEC_KEYS:
            raise ConfigError(
                f"{keys.texts}.{key}", "is not a valid key", suggest(str(key), SPEC_KEYS)
            )
    spec = parse_spec(value, field=keys.texts)
    dataset, chosen, place = _open(spec, columns, cache_dir, keys)
    if spec.limit is not None:
        dataset = dataset.select(range(min(spec.limit, dataset.num_rows)))
    table: pa.Table = dataset.data.table
    keep, dropped = _kept(table, chosen, spec, place, keys)
    if keep is not None and len(keep) == 0:
        reasons = ", ".join(each.describe() for each in dropped)
        fix = "name other files, or another column"
        raise ConfigError(path_key(keys.texts), f"holds no rows but those left out: {reasons}", fix)
    texts = ColumnTexts(table, chosen.texts, chosen.template, keep)
    ids: Texts | None = None
    if chosen.id is not None:
        ids = ColumnTexts(table, (chosen.id,), f"{{{chosen.id}}}", keep)
    elif keep is not None:
        ids = RowNumbers(keep)
    is_plain = chosen.template == f"{{{chosen.texts[0]}}}"
    shown = f"column '{chosen.texts[0]}'" if is_plain else chosen.template
    name = f", ids: column '{chosen.id}'" if chosen.id is not None else ""
    return Corpus(texts, ids, f"texts: {shown}{name}", dropped)


@final
class ColumnTexts:
    """A text for each kept row of a table.

    Args:
        table: memory-mapped.
        columns: that the template names.
        template: see `template.fill`.
        keep: numbers of the rows, rising; None for all.
    """

    def __init__(
        self, table: pa.Table, columns: Sequence[str], template: str, keep: np.ndarray | None
    ) -> None:
        self._table, self._template, self._keep = table.select(list(columns)), template, keep
        self._is_plain = [f"{{{name}}}" for name in columns] == [template]

    def __len__(self) -> int:
        return int(self._table.num_rows) if self._keep is None else len(self._keep)

    def read(self, start: int, stop: int) -> list[str]:
        """The texts ``start .. stop - 1``."""
        if start >= stop:
            return []
        if self._keep is None:
            part = self._table.slice(start, stop - start)
        else:
            rows = self._keep[start:stop]
            first = int(rows[0])
            part = self._table.slice(first, int(rows[-1]) + 1 - first).take(pa.array(rows - first))
        if self._is_plain:
            return [str(value) for value in part.column(0).to_pylist()]
        return [fill(self._template, record) for record in part.to_pylist()]


@final
class RowNumbers:
    """The numbers of kept rows, as texts."""

    def __init__(self, keep: np.ndarray) -> None:
        self._keep = keep

    def __len__(self) -> int:
        return len(self._keep)

    def read(self, start: int, stop: int) -> list[str]:
        """Those of the texts ``start .. stop - 1``."""
        return list(map(str, self._keep[start:stop].tolist()))


def _open(
    spec: SourceSpec, columns: Mapping[str, Any], cache_dir: str | None, keys: TextKeys
) -> tuple[datasets.Dataset, _Columns, Place]:
    files: Files | None = None
    if spec.hub is not None:
        dataset = load_hub(spec, field=keys.texts, cache_dir=cache_dir)
        chosen = choose_columns(dataset.column_names, columns, keys)
        return dataset, chosen, Place(spec.hub, None, keys.texts)
    assert spec.path is not None
    reading = replace(spec.reading(field=keys.texts), lists=False)  # a text may look like a list
    files = resolve_files(spec.path, field=keys.texts, reading=reading, kinds=TEXT_KINDS)
    chosen = choose_columns(peek_columns(files, field=keys.texts), columns, keys)
    dataset = load_files(files, chosen.roles, cache_dir=cache_dir, field=keys.texts)
    return dataset, chosen, Place(files.paths[0], files, keys.texts)


def choose_columns(
    names: Sequence[str], given: Mapping[str, Any], keys: TextKeys = KEYS
) -> _Columns:
    """The columns of texts and ids.

    Args:
        names: of all columns.
        given: see `load_texts`.
        keys: under which they stand.

    Raises:
        ConfigError: an unknown key or column, or names among which none is recognised.
    """
    for key in given:
        if key not in (valid := ["text", keys.id]):
            raise ConfigError(
                f"{keys.columns}.{key}", "is not a valid key", suggest(str(key), valid)
            )
    by_lower = {name.lower(): name for name in names}
    template = given.get("text")
    if template is None:
        template = _recognised(by_lower, names, keys)
    template = str(template)
    if template in names:
        template = f"{{{template}}}"
    texts = template_columns(template) or (template,)
    for name in texts:
        if name not in names:
            problem = f"names '{name}', which is none of the columns {list(names)}"
            raise ConfigError(f"{keys.columns}.text", problem, suggest(name, names))
    known = [by_lower[name] for name in _ID_NAMES if name in by_lower]
    chosen = given[keys.id] if keys.id in given else next(iter(known), None)
    if chosen is not None and chosen not in names:
        raise ConfigError(
            f"{keys.columns}.{keys.id}",
            f"is none of the columns {list(names)}",
            suggest(str(chosen), names),
            value=chosen,
        )
    return _Columns(texts, template, None if chosen is None else str(chosen))


def _recognised(by_lower: Mapping[str, str], names: Sequence[str], keys: TextKeys) -> str:
    found = [by_lower[name] for name in _TEXT_NAMES if name in by_lower]
    if found[:1] == [by_lower.get("text")] and "title" in by_lower:
        return TITLE_AND_TEXT.format(title=f"{{{by_lower['title']}}}", text=f"{{{found[0]}}}")
    others = [name for name in names if name.lower() not in _ID_NAMES]
    if len(found) == 1 or len(others) == 1:
        return [*found, *others][0]
    raise ConfigError(
        path_key(keys.texts),
        f"has the columns {list(names)}, {'several' if found else 'none'} of which could be its texts",
        f"set {keys.columns}.text=COLUMN, or a template such as {keys.columns}.text='{TITLE_AND_TEXT}'",
    )


def _kept(
    table: pa.Table, columns: _Columns, spec: SourceSpec, place: Place, keys: TextKeys
) -> tuple[np.ndarray | None, tuple[Dropped, ...]]:
    """Numbers of the rows that are used, None for all, and the others by reason."""
    for name in columns.texts:
        if not is_text(table.column(name).type):
            problem = f"uses '{name}', a column of {table.column(name).type}"
            raise ConfigError(f"{keys.columns}.text", problem, "name a column of texts")
        try:
            table.column(name).validate(full=True)
        except pa.ArrowInvalid as error:
            raise not_utf8(place) from error
    left, dropped = np.ones(table.num_rows, dtype=bool), list[Dropped]()
    if BAD_ROW in table.column_names:
        marks = table.column(BAD_ROW)
        left &= pc.is_null(marks).to_numpy()
        dropped += count_marks(pc.drop_null(marks).to_pylist())
    shown = " and ".join(columns.texts)
    wrong = [("an empty text", shown, _is_blank(table, columns.texts))]
    if columns.id is not None:
        ids = table.column(columns.id)
        if not (is_text(ids.type) or pa.types.is_integer(ids.type)):
            problem = f"names a column of {ids.type}, but ids are texts or whole numbers"
            raise ConfigError(
                f"{keys.columns}.{keys.id}", problem, "name another one, or null", value=columns.id
            )
        wrong.append(("no id (null)", columns.id, pc.is_null(ids).to_numpy()))
    for what, column, wrong_N in wrong:
        rows = np.flatnonzero(wrong_N & left)
        if not len(rows):
            continue
        if spec.empty == "error":
            refuse_row(what, column, int(rows[0]), columns.roles, place, empty=True)
        left[rows] = False
        dropped.append(drop_rows(what, column, rows, columns.roles, place))
    return None if left.all() else np.flatnonzero(left), tuple(dropped)


def _is_blank(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Mark rows all of whose texts are null, empty or white space only: bool [N]."""
    marks = []
    for name in names:
        chunks = [is_blank(plain(chunk)) for chunk in table.column(name).chunks]
        marks.append(np.concatenate([np.zeros(0, dtype=bool), *chunks]))
    blank: np.ndarray = np.logical_and.reduce(marks)
    return blank
