"""Parses a request for a table: its query string and its `Prefer` header.

It supports part of PostgREST's grammar: columns to select, with aliases; the filters `eq` and `in`; `order`;
`limit`; and the preferences `return` and `count=exact`. What only PostgREST supports is answered with
PostgREST's error for missing features (PGRST127), and anything else with its error for query strings
(PGRST100). Source: `src/library/PostgREST/ApiRequest/QueryParams.hs`, `ApiRequest/Preferences.hs` and
`Error.hs` at commit 4834678 (in development for version 17).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from priorityd.daemon.sandbox.rest.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.datastructures import Headers

_OPERATORS = {
    "eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch", "in", "is", "isdistinct",
    "fts", "plfts", "phfts", "wfts", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj", "not",
}  # fmt: skip
_RESERVED = {"apikey", "select", "columns", "order", "limit"}
_NOT_SERVED = {"offset", "on_conflict", "and", "or", "not.and", "not.or"}
_PREFERENCES = {"return=representation", "return=minimal", "count=exact", "handling=lenient", "missing=null"}
_KNOWN_PREFERENCES = {"return", "count", "resolution", "missing", "tx", "max-affected"}
_COLUMN = re.compile(r'\w+|"(?:[^"\\]|\\.)+"')
_ORDER = re.compile(r"(?P<column>[\w ]+?)(?:\.(?P<way>asc|desc))?(?:\.(?P<nulls>nullsfirst|nullslast))?")
_SELECTED = re.compile(r"(?:(?P<alias>\w+):)?(?P<column>\w+|\*)")
# A value in a list, quoted (with quotes and backslashes escaped) or not, and the separator after it.
_LISTED = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^",]*))(,|$)')


@dataclass(frozen=True)
class Filter:
    """`column` is one of `values`; `several` distinguishes `in` from `eq`."""

    column: str
    values: tuple[str, ...]
    several: bool


@dataclass(frozen=True)
class Order:
    """One key of the order; `nulls` is None for PostgreSQL's default."""

    column: str
    descending: bool
    nulls: str | None


@dataclass(frozen=True)
class TableQuery:
    """A request without its table and its body.

    `select` has the columns and their names in the answer; `columns` are the columns of the body to use, None
    for all.
    """

    select: tuple[tuple[str, str | None], ...]
    filters: tuple[Filter, ...]
    order: tuple[Order, ...]
    limit: int | None
    columns: tuple[str, ...] | None
    wants_rows: bool
    wants_count: bool
    preferred: str

    @classmethod
    def read(cls, parameters: Iterable[tuple[str, str]], headers: Headers) -> TableQuery:
        """Parse it. Raises `ApiError`."""
        everything = list(parameters)
        reserved = {name: value for name, value in everything if name in _RESERVED}
        preferences = _preferences(headers)
        limit = reserved.get("limit")
        return cls(
            select=tuple(_selected(each) for each in reserved.get("select", "*").split(",")),
            filters=tuple(_filter(name, value) for name, value in everything if name not in _RESERVED),
            order=tuple(_order(each) for each in reserved["order"].split(",")) if "order" in reserved else (),
            # PostgREST ignores a limit that is not a number.
            limit=int(limit) if limit is not None and limit.isdecimal() else None,
            columns=_columns(reserved["columns"]) if "columns" in reserved else None,
            wants_rows="return=representation" in preferences,
            wants_count="count=exact" in preferences,
            preferred=", ".join(each for each in preferences if each.startswith(("return=", "count="))),
        )


def not_served(what: str) -> ApiError:
    """The answer to a request for what PostgREST supports and this does not."""
    details = f"This sandbox does not support {what}; use SQL on its database_url, or a real project."
    return ApiError(400, "PGRST127", "Feature not implemented", details)


def _unreadable(kind: str, value: str, expected: str) -> ApiError:
    found = f'unexpected "{value[0]}"' if value else "unexpected end of input"
    message = f'"failed to parse {kind} ({value})" (line 1, column 1)'
    return ApiError(400, "PGRST100", message, f"{found} expecting {expected}")


def _selected(text: str) -> tuple[str, str | None]:
    found = _SELECTED.fullmatch(text.strip())
    if found is None:
        raise not_served(f"select of {text.strip()!r}, only columns and aliases, without embedding or casts")
    return found["column"], found["alias"]


def _filter(name: str, value: str) -> Filter:
    if name in _NOT_SERVED:
        raise not_served(f"the parameter {name!r}")
    if not _COLUMN.fullmatch(name):
        raise not_served(f"filters on {name!r}, only on columns")
    operator, _, operand = value.partition(".")
    if operator.partition("(")[0] not in _OPERATORS:
        raise _unreadable("filter", value, '"not" or operator (eq, gt, ...)')
    if operator == "in":
        return Filter(_unquoted(name), _listed(value, operand), several=True)
    if operator != "eq":
        raise not_served(f"the filter {operator!r}, only eq and in")
    return Filter(_unquoted(name), (operand,), several=False)


def _listed(value: str, operand: str) -> tuple[str, ...]:
    if not (operand.startswith("(") and operand.endswith(")")):
        raise _unreadable("filter", value, '"("')
    rest, values, more = operand[1:-1], [], operand != "()"
    while more:
        found = _LISTED.match(rest)
        if found is None:
            raise _unreadable("filter", value, '"," or ")"')
        values.append(found[2] if found[1] is None else re.sub(r"\\(.)", r"\1", found[1]))
        rest, more = rest[found.end() :], found[3] == ","
    return tuple(values)


def _order(text: str) -> Order:
    found = _ORDER.fullmatch(text)
    if found is None:
        raise not_served(f"order by {text!r}, only columns with asc, desc, nullsfirst and nullslast")
    return Order(found["column"], found["way"] == "desc", found["nulls"])


def _columns(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_unquoted(each) for each in _COLUMN.findall(text)))


def _unquoted(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name[1:-1]) if name.startswith('"') else name


def _preferences(headers: Headers) -> list[str]:
    preferences = [each.strip() for line in headers.getlist("prefer") for each in line.split(",")]
    for preference in preferences:
        # PostgREST ignores preferences that it does not know, so only those that it knows are refused.
        if preference.partition("=")[0] in _KNOWN_PREFERENCES and preference not in _PREFERENCES:
            raise not_served(f"the preference {preference!r}")
    if "range" in headers:
        raise not_served("the header Range, only limit")
    return preferences
