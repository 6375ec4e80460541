"""Turns row changes into what each subscriber receives.

The rules are those of Realtime's SQL side, called walrus:

- A role gets the columns that it may select. It gets an error instead of the row if it may not select the
  whole primary key (401) or there is none (400), except for DELETEs.
- With row security on, an INSERT or UPDATE is sent only if the role sees the row now; a DELETE is sent to
  everyone, with the primary key only.
- A filter must pass: for INSERT and UPDATE on the new row, for DELETE on the replica identity of the old one.
- A change of more than 1 MiB is sent with an error, and with only the values of at most 64 bytes.
- The order is that of the log: transactions as they were committed, rows as they were written.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import Error, OperationalError

from priorityd.daemon.sandbox.realtime.pgoutput import Kind, RowChange
from priorityd.daemon.sandbox.realtime.protocol import to_json
from priorityd.daemon.sandbox.realtime.rows import Image, new_image, old_image, to_json_values, visible_rows
from priorityd.daemon.sandbox.realtime.tables import Table, read_tables

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from psycopg import AsyncConnection

    from priorityd.daemon.sandbox.realtime.bindings import Filter
    from priorityd.daemon.sandbox.realtime.subscriptions import Interest, Subscription

_LOG = logging.getLogger(__name__)

_MOST_BYTES = 1024 * 1024
_MOST_BYTES_OF_A_VALUE = 64
# How many rows are turned into frames before other tasks run.
_CHUNK = 250

Audience = Sequence[tuple["Subscription", list["Interest"]]]


@dataclass
class _Row:
    """A change with its row images as JSON values, and the filters that it passes."""

    change: RowChange
    new: dict[str, Any] | None = None
    old: dict[str, Any] | None = None
    passes: dict[Filter, bool] = field(default_factory=dict)
    is_too_large: bool = False
    hidden_from: set[Subscription] = field(default_factory=set)


async def publish(
    connection: AsyncConnection[Any], changes: Sequence[RowChange], subscriptions: Iterable[Subscription]
) -> int:
    """Send these changes to these subscriptions, and return to how many bindings, summed over the changes."""
    audiences = _audiences(subscriptions)
    wanted = [change for change in changes if _is_wanted(change, audiences.get(change.relation.oid, ()))]
    if not wanted:
        return 0
    roles = {subscription.claims.role for audience in audiences.values() for subscription, _ in audience}
    tables = await read_tables(connection, {change.relation.oid for change in wanted}, roles)
    chunks = [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]
    return sum([await _publish_chunk(connection, chunk, tables, audiences) for chunk in chunks])


def _is_wanted(change: RowChange, audience: Audience) -> bool:
    return any(interest.is_in(change.kind) for _, interests in audience for interest in interests)


def _audiences(subscriptions: Iterable[Subscription]) -> dict[int, Audience]:
    """For each table, the subscriptions that want its changes, and by which bindings."""
    found: dict[int, list[tuple[Subscription, list[Interest]]]] = defaultdict(list)
    for subscription in subscriptions:
        by_table: dict[int, list[Interest]] = defaultdict(list)
        for interest in subscription.interests:
            by_table[interest.table_oid].append(interest)
        for oid, interests in by_table.items():
            found[oid].append((subscription, interests))
    return dict(found)


async def _publish_chunk(
    connection: AsyncConnection[Any],
    changes: Sequence[RowChange],
    tables: dict[int, Table],
    audiences: dict[int, Audience],
) -> int:
    rows = [_Row(change) for change in changes]
    by_table: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        by_table[row.change.relation.oid].append(row)
    readable: set[int] = set()
    for oid, table in tables.items():
        if oid in by_table and await _read(connection, table, by_table[oid], audiences[oid]):
            readable.add(oid)
    return sum(
        _send(row, tables[row.change.relation.oid], audiences[row.change.relation.oid])
        for row in rows
        if row.change.relation.oid in readable
    )


async def _read(connection: AsyncConnection[Any], table: Table, rows: list[_Row], audience: Audience) -> bool:
    """Fill in the rows; False if the table has changed so much since then that this is impossible."""
    try:
        await _convert(connection, table, rows, audience)
        if table.row_security and table.primary_key:
            await _hide(connection, table, rows, audience)
    except OperationalError:
        raise
    except Error as error:
        _LOG.warning("changes of %s.%s are lost: %s", table.schema, table.name, error)
        return False
    return True


async def _convert(
    connection: AsyncConnection[Any], table: Table, rows: list[_Row], audience: Audience
) -> None:
    filters = list({i.filter: None for _, interests in audience for i in interests if i.filter})
    new_images = [(row, image) for row in rows if (image := new_image(row.change)) is not None]
    old_images = [(row, image) for row in rows if (image := old_image(row.change)) is not None]
    values, passes = await to_json_values(connection, table, [image for _, image in new_images], filters)
    for (row, image), value, passed in zip(new_images, values, passes, strict=True):
        row.new, row.passes = value, dict(zip(filters, passed, strict=True))
        row.is_too_large = _size(image) > _MOST_BYTES
    values, passes = await to_json_values(connection, table, [image for _, image in old_images], filters)
    for (row, image), value, passed in zip(old_images, values, passes, strict=True):
        row.old = value
        if row.change.kind is Kind.DELETE:
            row.passes = dict(zip(filters, passed, strict=True))
        row.is_too_large = row.is_too_large or _size(image) > _MOST_BYTES


def _size(image: Image) -> int:
    return sum(len(value) if value.isascii() else len(value.encode()) for value in image.values() if value)


async def _hide(connection: AsyncConnection[Any], table: Table, rows: list[_Row], audience: Audience) -> None:
    """Record from which subscriptions row security hides which rows."""
    checked = [(row, new_image(row.change) or {}) for row in rows if row.change.kind is not Kind.DELETE]
    images = [image for _, image in checked]
    seen: dict[str, set[int]] = {}
    for subscription, _ in audience:
        claims = subscription.claims
        viewer = to_json(claims.everything)
        if table.error_for(claims.role) or not images:
            continue
        if viewer not in seen:
            seen[viewer] = await visible_rows(connection, table, images, claims.role, claims.everything)
        for n, (row, _) in enumerate(checked):
            if n not in seen[viewer]:
                row.hidden_from.add(subscription)


def _send(row: _Row, table: Table, audience: Audience) -> int:
    texts: dict[str, str] = {}
    sent = 0
    for subscription, interests in audience:
        role = subscription.claims.role
        error = table.error_for(role) if row.change.kind is not Kind.DELETE else None
        if subscription in row.hidden_from:
            continue
        # Realtime lists the ids newest binding first.
        asked = [i for i in reversed(interests) if i.is_in(row.change.kind)]
        ids = [i.binding_id for i in asked if error or _passes(row, i)]
        if ids:
            if role not in texts:
                texts[role] = _error_text(row, error) if error else _text(row, table, role)
            subscription.deliver(texts[role], ids)
            sent += len(ids)
    return sent


def _passes(row: _Row, interest: Interest) -> bool:
    return interest.filter is None or row.passes[interest.filter]


def _text(row: _Row, table: Table, role: str) -> str:
    change = row.change
    parts = {
        "columns": table.columns_json(role),
        "commit_timestamp": f'"{_milliseconds(change.committed_at)}"',
        "errors": '["Error 413: Payload Too Large"]' if row.is_too_large else "null",
        "schema": to_json(change.relation.schema),
        "table": to_json(change.relation.table),
        "type": f'"{change.kind.value}"',
    }
    if row.new is not None:
        parts["record"] = to_json(_readable(row, row.new, table, role))
    if row.old is not None:
        old = _readable(row, row.old, table, role)
        if change.kind is Kind.DELETE and table.row_security:
            old = {name: value for name, value in old.items() if table.by_name[name].is_primary_key}
        parts["old_record"] = to_json(old)
    return _object(parts)


def _readable(row: _Row, values: dict[str, Any], table: Table, role: str) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if role in table.by_name[name].readers and not (row.is_too_large and not _is_small(value))
    }


def _is_small(value: Any) -> bool:
    # Null has no size in SQL, so it is left out as well.
    return value is not None and len(to_json(value).encode()) <= _MOST_BYTES_OF_A_VALUE


def _error_text(row: _Row, error: str) -> str:
    change = row.change
    parts = {
        "columns": "[]",
        "commit_timestamp": "null",
        "errors": to_json([error]),
        "record": "{}",
        "schema": to_json(change.relation.schema),
        "table": to_json(change.relation.table),
        "type": f'"{change.kind.value}"',
    }
    if change.kind is Kind.UPDATE:
        parts["old_record"] = "{}"
    return _object(parts)


def _object(parts: dict[str, str]) -> str:
    return "{" + ",".join(f'"{key}":{parts[key]}' for key in sorted(parts)) + "}"


def _milliseconds(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
