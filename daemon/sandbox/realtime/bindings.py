"""The `postgres_changes` bindings of a channel, parsed like Realtime does. Pure."""

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
    """A binding that can't be subscribed to; the text is sent to the client."""


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
    """What a binding selects: tables (`*` for all of a schema), rows, and a kind of change (`*` for all)."""

    schema: str
    table: str
    filter: Filter | None
    event: str = EVERYTHING


def description(goal: Target) -> str:
    """The target as error messages describe it."""
    filters = ""
    if goal.filter is not None:
        parts = (goal.filter.column, goal.filter.operator, goal.filter.value)
        quoted = (json.dumps(part, ensure_ascii=False) for part in parts)
        filters = f"{{{', '.join(quoted)}, false}}"
    asked = f"event: {goal.event}, schema: {goal.schema}, table: {goal.table}"
    return f"[{asked}, filters: [{filters}], select: nil]"


def read_bindings(config: Any) -> list[Binding]:
    """The bindings in a join payload's `config`; entries that are not objects are ignored."""
    entries = config.get("postgres_changes") if isinstance(config, dict) else None
    return [_binding(entry) for entry in entries or [] if isinstance(entry, dict)]


def wants_presence(config: Any) -> bool:
    """Whether a join payload's `config` turns presence on; it is off by default."""
    presence = config.get("presence") if isinstance(config, dict) else None
    return isinstance(presence, dict) and presence.get("enabled") in (True, "true", "True")


def _binding(config: dict[str, Any]) -> Binding:
    # As in Realtime, the id is a hash of the configuration below 2^27, so it is the same on every join.
    return Binding(zlib.crc32(to_json(config).encode()) & 0x7FFFFFF, config)


def target(binding: Binding) -> Target:
    """What the binding selects. Raises `BadBinding`."""
    event = binding.config.get("event")
    event = event if event in EVENTS else EVERYTHING  # an unknown event means all
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
