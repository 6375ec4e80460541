"""The catalog's current description of the tables whose changes are being delivered.

It is read again for every poll that has changes, because row security, grants and columns may have changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from priorityd.daemon.sandbox.queries import query
from priorityd.daemon.sandbox.realtime.protocol import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import AsyncConnection


@dataclass(frozen=True)
class TableColumn:
    """A column; `type` is for casts, `type_name` is sent to clients, and `readers` may select it."""

    name: str
    type_name: str
    type: str
    is_primary_key: bool
    readers: frozenset[str]


@dataclass(frozen=True)
class Table:
    """A table as it is now."""

    row_security: bool
    schema: str
    name: str
    columns: tuple[TableColumn, ...]

    @cached_property
    def by_name(self) -> dict[str, TableColumn]:
        """The columns by their names."""
        return {column.name: column for column in self.columns}

    @cached_property
    def primary_key(self) -> tuple[TableColumn, ...]:
        """The columns of the primary key; empty if there is none."""
        return tuple(column for column in self.columns if column.is_primary_key)

    def columns_json(self, role: str) -> str:
        """The `columns` of a change: names and types of those that the role may select."""
        if role not in self._columns_json:
            readable = [{"name": c.name, "type": c.type_name} for c in self.columns if role in c.readers]
            self._columns_json[role] = to_json(readable)
        return self._columns_json[role]

    @cached_property
    def _columns_json(self) -> dict[str, str]:
        return {}

    def error_for(self, role: str) -> str | None:
        """The error that the role gets instead of rows, if any (not for DELETEs)."""
        if not self.primary_key:
            return "Error 400: Bad Request, no primary key"
        if not all(role in column.readers for column in self.primary_key):
            return "Error 401: Unauthorized"
        return None


async def read_tables(
    connection: AsyncConnection[Any], oids: Iterable[int], roles: Iterable[str]
) -> dict[int, Table]:
    """These tables by oid; those dropped meanwhile are missing."""
    parameters = {"tables": list(oids), "roles": list(roles)}
    rows = await (await connection.execute(query("table_columns"), parameters)).fetchall()
    columns: dict[tuple[int, bool, str, str], list[TableColumn]] = {}
    for oid, row_security, schema, table, name, type_name, type_, is_key, readers in rows:
        columns.setdefault((oid, row_security, schema, table), []).append(
            TableColumn(name, type_name, type_, is_key, frozenset(readers))
        )
    return {
        oid: Table(row_security, schema, name, tuple(found))
        for (oid, row_security, schema, name), found in columns.items()
    }
