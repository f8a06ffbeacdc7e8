"""Finds the role of each column of a data set: query, positive, negatives, label, key.

Common names are recognised (case does not count); anything else must be named in the configuration.
There is no fallback to the order of the columns, because a wrong order trains without any error. A
key (a product, a cluster: rows that share it never meet as negatives) is always named. The column of
positives and those of negatives may hold lists; scores of their texts stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inbatch.data.sources.column_names import (
    LABEL_NAMES,
    POSITIVE_NAMES,
    QUERY_NAMES,
    SCORES,
    TEXT_NAMES,
    layouts_of,
    negative_names,
    score_names,
)
from inbatch.data.sources.config_keys import columns_key, path_key, to_set
from inbatch.errors import ConfigError, did_you_mean

# Words for several columns in `prompts`, from the narrow to the wide.
DOCUMENT_WORDS = ("document", "passage", "corpus")

_SYNONYMS = {"anchor": "query", "negative": "negatives", "score": "label"}
_SINGLE = ("label", "key", *SCORES)
MAPPING_KEYS = ("query", "positive", "negatives", *_SINGLE, *_SYNONYMS)


@dataclass(frozen=True, slots=True)
class Roles:
    """Column names by role; `ignored` are the columns without a role.

    `lists` are the document columns that may give a row any number of texts: lists, and texts of which some
    are null. Where there are any, the rows are ragged. They follow from the types, see `lists.with_lists`.
    `prompt` is the column that the prompt of all queries was read from. Rows of one text and a label have
    it as their query, and no positive ("").
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    label: str | None = None
    ignored: tuple[str, ...] = ()
    key: str | None = None
    positive_score: str | None = None
    negative_score: str | None = None
    lists: tuple[str, ...] = ()
    prompt: str | None = field(default=None, repr=False)  # which no array depends on

    @property
    def texts(self) -> tuple[str, ...]:
        """Text columns in the order of a batch: query, positive if there is one, negatives."""
        return tuple(filter(None, (self.query, self.positive, *self.negatives)))

    @property
    def used(self) -> tuple[str, ...]:
        """Text columns, and the columns of label, key and scores if there are any."""
        return (*self.texts, *(name for role in _SINGLE if (name := getattr(self, role))))

    @property
    def scores(self) -> tuple[str, ...]:
        """Columns of scores of documents."""
        return tuple(filter(None, (self.positive_score, self.negative_score)))

    @property
    def signature(self) -> str:
        """Differs where any column has another role, for the keys of what is computed from the columns."""
        return repr(replace(self, ignored=()))

    def role(self, column: int) -> str:
        """Role of text column number `column`: "query", "positive" or "negative"."""
        return ("query", "positive")[column] if column < 2 else "negative"


def find_roles(
    names: Sequence[str], *, mapping: Mapping[str, object] | None = None, field: str = "data.train"
) -> Roles:
    """Give each column its role, by the user's mapping or else by common names.

    Args:
        names: Columns of the data set.
        mapping: ``{query, positive, negatives, label, key, positive_score, negative_score}`` -> column name
            (negatives: one or several); anchor, negative and score are other words for three of them. With
            `query` and `positive` it alone decides; with less, the other columns are found by their names.
            With a label rows may have a query alone: where no column has a positive's name, or it is null.
        field: Configuration key of the source, for messages.

    Raises:
        ConfigError: An unknown column or key, or names that fit no role or more than one.
    """
    if mapping:
        return _mapped_roles(list(names), _completed(names, mapping, field=field), field=field)
    by_lower = {name.lower(): name for name in names}
    layouts = layouts_of(names)
    labels = [by_lower[name] for name in LABEL_NAMES if name in by_lower]
    if len(layouts) == 1 and len(labels) <= 1:
        texts = [by_lower[name] for name in (*layouts[0], *negative_names(by_lower))]
        label = labels[0] if labels else None
        return _roles(list(names), texts, {"label": label, **score_names(by_lower)})
    alone = [by_lower[name] for name in TEXT_NAMES if name in by_lower]
    if not layouts and len(alone) == len(labels) == 1:
        return _roles(list(names), [*alone, ""], {"label": labels[0]})
    if layouts:
        seen = [by_lower[name] for layout in layouts for name in layout] + labels
        reason = f"match the roles in more than one way ({', '.join(dict.fromkeys(seen))})"
    else:
        reason = (
            "match no known pair of names (such as query and positive, sentence1 and sentence2; or text and "
            "label)"
        )
    raise ConfigError(
        path_key(field),
        f"has the columns {list(names)}, which {reason}",
        f"say which to use, as {to_set(field, 'columns.query=COLUMN')} and "
        f"{to_set(field, 'columns.positive=COLUMN')}",
    )


def resolve_prompts(
    prompts: Mapping[str, str] | None, roles: Roles, *, field: str = "data.prompts"
) -> tuple[str, ...]:
    """The prompt of each text column ("" for none).

    Keys are column names, or the words query, positive, negative, or document (also passage,
    corpus: every column but the query). A narrow key wins over a wide one.

    Raises:
        ConfigError: A key that is neither a column nor one of these words.
    """
    prompts = dict(prompts or {})
    known = ("query", "positive", "negative", *DOCUMENT_WORDS, *roles.texts)
    for key in prompts:
        if key not in known:
            raise ConfigError(
                f"{field}.{key}", "is not a column or a role", suggest(str(key), known)
            )
    resolved = []
    for column, name in enumerate(roles.texts):
        wide = () if column == 0 else DOCUMENT_WORDS
        keys = (name, roles.role(column), *wide)
        resolved.append(next((prompts[key] for key in keys if key in prompts), ""))
    return tuple(resolved)


def suggest(value: str, known: Sequence[str]) -> str:
    """A fix for an unknown word: the nearest known one, or all of them."""
    return did_you_mean(value, known) or f"choose from {', '.join(dict.fromkeys(known))}"


def _completed(
    names: Sequence[str], mapping: Mapping[str, object], *, field: str
) -> dict[str, object]:
    """The mapping by the first word of each role, with query and positive."""
    given = {_SYNONYMS.get(key, key): value for key, value in mapping.items()}
    for word, value in given.items():
        if word not in MAPPING_KEYS:
            raise ConfigError(
                f"{columns_key(field)}.{word}",
                "is not a valid key",
                f"set {to_set(field, 'max_negatives=4')}"
                if word == "max_negatives"
                else suggest(str(word), MAPPING_KEYS),
            )
        if word != "negatives" and value is not None:
            _one(given, word, field=field)
    if {"query", "positive"} <= given.keys():
        if given["positive"] is None and given.get("label") is None:
            raise ConfigError(
                f"{columns_key(field)}.positive",
                "is null, and rows of one text need a label",
                f"set {to_set(field, 'columns.label')} too",
            )
        return given
    taken = {column for value in given.values() for column in _as_list(value)}
    left = [name for name in names if name not in taken]
    if not {"query", "positive"} & given.keys():
        alone = [name for name in left if name.lower() in TEXT_NAMES]
        if given.get("label") is not None and len(alone) == 1 and not layouts_of(left):
            return {**given, "query": alone[0], "positive": None}
        found = find_roles(left, field=field)
        roles = {role: getattr(found, role) for role in ("query", "positive", "label", *SCORES)}
        return {**roles, "negatives": found.negatives, **given}
    by_lower = {name.lower(): name for name in left}
    missing, words = ("query", QUERY_NAMES) if "positive" in given else ("positive", POSITIVE_NAMES)
    fits = [by_lower[word] for word in words if word in by_lower]
    labels = [by_lower[name] for name in LABEL_NAMES if name in by_lower]
    label = given.get("label", labels[0] if labels else None)
    # Without a label that was named, any other column may be the positive.
    one_text = given.get("label") is not None or {*left} == {label}
    if not fits and missing == "positive" and label is not None and one_text:
        return {**given, "label": label, "positive": None}
    if len(fits) != 1:
        raise ConfigError(
            f"{columns_key(field)}.{missing}",
            f"is not set, and {fits or 'none'} of the columns {left} can be it",
            f"set {to_set(field, f'columns.{missing}')}",
        )
    others = {"negatives": negative_names(by_lower), "label": label}
    return {**others, **score_names(by_lower), missing: fits[0], **given}


def _mapped_roles(names: list[str], mapping: Mapping[str, object], *, field: str) -> Roles:
    query = _one(mapping, "query", field=field)
    positive = [_one(mapping, "positive", field=field)] if mapping.get("positive") else []
    negatives = _as_list(mapping.get("negatives"))
    single = {
        role: None if mapping.get(role) is None else _one(mapping, role, field=field)
        for role in _SINGLE
    }
    extra = [name for name in single.values() if name is not None]
    chosen = [_known(name, names, field=field) for name in (query, *positive, *negatives, *extra)]
    if len(set(chosen)) < len(chosen):
        raise ConfigError(
            columns_key(field), f"uses a column twice in {chosen}", "name each one once"
        )
    if negatives and not positive:
        raise ConfigError(
            f"{columns_key(field)}.negatives",
            "stands beside no positive",
            "name a positive, or leave the negatives out",
            value=negatives,
        )
    return _roles(names, [query, *(positive or [""]), *negatives], single)


def _roles(names: list[str], texts: list[str], single: Mapping[str, Any]) -> Roles:
    ignored = tuple(name for name in names if name not in (*texts, *single.values()))
    return Roles(texts[0], texts[1], tuple(texts[2:]), ignored=ignored, **single)


def _known(column: str, names: Sequence[str], *, field: str) -> str:
    if column not in names:
        hint = suggest(column, names)
        if field.startswith("data.eval"):  # its columns need not be those of the training data
            own = to_set(field, "columns.ROLE=COLUMN")
            hint = f"where this set has different columns ({', '.join(names)}), set {own}"
        raise ConfigError(
            columns_key(field), f"names '{column}', which the data does not have", hint
        )
    return column


def _one(mapping: Mapping[str, object], key: str, *, field: str) -> str:
    columns = _as_list(mapping.get(key))
    if len(columns) != 1:
        raise ConfigError(
            f"{columns_key(field)}.{key}",
            "does not name one column",
            "name one, and write one source for each further one",
            value=columns,
        )
    return columns[0]


def _as_list(value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, Sequence):
        return [str(item) for item in value]
    raise ConfigError("a column", "is not given by its name", "give its name", value=value)
