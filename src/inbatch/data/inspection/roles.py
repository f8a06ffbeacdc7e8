"""Why each column of a source has its role: the rule of data/sources/columns.py that gave it."""

from __future__ import annotations

from collections.abc import Mapping

from inbatch.data.inspection.values import RoleOf
from inbatch.data.sources.column_names import pattern_of
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import columns_key

IGNORED = "ignored"
FIXED = "fixed when the data were prepared"


def roles_of(
    roles: Roles,
    mapping: Mapping[str, object] | None,
    *,
    field: str,
    prepared: bool,
    stored: Roles | None = None,
) -> tuple[RoleOf, ...]:
    """The role of each column, "ignored" for none, and the rule that gave it.

    Args:
        roles: as found.
        mapping: `columns` of the source as configured.
        field: configuration key of the source.
        prepared: whether the roles come from a prepared folder.
        stored: those of the columns of lists, where each of their texts is a column; None for the same.
    """
    lists = roles.negatives if stored is None else stored.negatives
    of_lists = {
        name: f"text {number} of the lists in {' and '.join(lists)}"
        for number, name in enumerate(roles.negatives, 1)
        if name not in lists
    }
    found = [(name, roles.role(number)) for number, name in enumerate(roles.texts)]
    single = ("label", "key", "positive_score", "negative_score", "prompt")
    found += [(name, role) for role in single if (name := getattr(roles, role))]
    rules = {name: FIXED for name, _ in found} if prepared else _named(mapping or {}, field)
    used = [
        RoleOf(name, role, of_lists.get(name) or rules.get(name) or _rule(name, role, roles))
        for name, role in found
    ]
    alone = {"anchor", "query"} & {*(mapping or {})} and "positive" in (mapping or {})
    rule = f"{columns_key(field)} does not name it" if alone else "no known name"
    return (*used, *(RoleOf(name, IGNORED, rule) for name in roles.ignored))


def _named(mapping: Mapping[str, object], field: str) -> dict[str, str]:
    """Columns that the configuration names, with its words for that."""
    named = {}
    for key, value in mapping.items():
        for column in value if isinstance(value, list | tuple) else [value]:
            named[str(column)] = f"{columns_key(field)}.{key} names it"
    return named


def _rule(name: str, role: str, roles: Roles) -> str:
    """The rule by which a name was recognised."""
    pattern = pattern_of(name)
    if role == "query" and not roles.positive:
        return "the only text beside a label"
    if role in ("query", "positive"):
        known = {"numbered": "numbered texts", "sided": "two sides"}
        return f"{known.get(pattern, 'known pair of names')}: {roles.query} and {roles.positive}"
    if role == "negative" and pattern != "negative":
        return f"numbered text after {roles.positive}"
    if role == "prompt":
        return "the format's, in front of every query"
    return f"known name of a {role}"
