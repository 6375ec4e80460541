"""What a channel asks for: `postgres_changes` bindings, read as Realtime reads them. Pure."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

from priorityd.daemon.sandbox.realtime.protocol import to_json

OPERATORS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": "= any"}
EVENTS = ("INSERT", "UPDATE", "DELETE")
EVERYTHING = "*"


class BadBinding(ValueError):  # noqa: N818 - named by what it is
    """A binding that cannot be subscribed; the text is sent to the client."""


@dataclass(frozen=True)
class Filter:
    """`column=operator.value`; the value of `in` is an array literal."""

    column: str
    operator: str
    value: str


@dataclass(frozen=True)
class Binding:
    """One entry of a join's `postgres_changes`: its id and the configuration as the client sent it."""

    id: int
    config: dict[str, Any]

    def reply(self) -> str:
        """The entry in the join's reply: the id first, then what the client sent."""
        rest = to_json(self.config)[1:]
        return f'{{"id":{self.id}{"," if self.config else ""}{rest}'


@dataclass(frozen=True)
class Target:
    """What a binding means: tables (`*` for all of a schema), rows, and a kind of change (`*` for all)."""

    schema: str
    table: str
    filter: Filter | None
    event: str = EVERYTHING


def words(goal: Target) -> str:
    """What was asked for, as an error message lists it."""
    filters = ""
    if goal.filter is not None:
        parts = (goal.filter.column, goal.filter.operator, goal.filter.value)
        quoted = (json.dumps(part, ensure_ascii=False) for part in parts)
        filters = f"{{{', '.join(quoted)}, false}}"
    asked = f"event: {goal.event}, schema: {goal.schema}, table: {goal.table}"
    return f"[{asked}, filters: [{filters}], select: nil]"


def read_bindings(config: Any) -> list[Binding]:
    """The bindings of a join payload's `config`; anything that is not an object is not a binding."""
    entries = config.get("postgres_changes") if isinstance(config, dict) else None
    return [_binding(entry) for entry in entries or [] if isinstance(entry, dict)]


def wants_presence(config: Any) -> bool:
    """Whether a join payload's `config` turns presence on, which it is not by itself."""
    presence = config.get("presence") if isinstance(config, dict) else None
    return isinstance(presence, dict) and presence.get("enabled") in (True, "true", "True")


def _binding(config: dict[str, Any]) -> Binding:
    # As with Realtime, the id is a hash of the configuration, the same on every join, below 2^27.
    return Binding(zlib.crc32(to_json(config).encode()) & 0x7FFFFFF, config)


def target(binding: Binding) -> Target:
    """What the binding means. Raises `BadBinding`."""
    event = binding.config.get("event")
    event = event if event in EVENTS else EVERYTHING  # an unknown word is as good as none
    match binding.config:
        case {"schema": str(schema), "table": str(table), "filter": str(text)}:
            return Target(schema, table, _filter(text), event)
        case {"filter": _}:
            pass
        case {"schema": str(schema), "table": str(table)}:
            return Target(schema, table, None, event)
        case {"schema": str(schema)}:
            return Target(schema, EVERYTHING, None, event)
        case {"table": str(table)}:
            return Target("public", table, None, event)
    raise BadBinding(
        "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: "
        + _elixir_map(binding.config)
    )


def _filter(text: str) -> Filter:
    parts = text.split("=", 1)
    if len(parts) == 2:
        column, parts = parts[0], parts[1].split(".", 1)
        if len(parts) == 2 and parts[0] in OPERATORS:
            return Filter(column, parts[0], _value(*parts))
    raise BadBinding(f"Error parsing `filter` params: {json.dumps(parts, ensure_ascii=False)}")


def _value(operator: str, value: str) -> str:
    if operator != "in":
        return value
    if not (value.startswith("(") and value.endswith(")")):
        raise BadBinding("Error parsing `filter` params: `in` filter value must be wrapped by parentheses")
    return "{" + value[1:-1] + "}"


def _elixir_map(config: dict[str, Any]) -> str:
    entries = (f"{json.dumps(key)} => {json.dumps(value)}" for key, value in sorted(config.items()))
    return "%{" + ", ".join(entries) + "}"
