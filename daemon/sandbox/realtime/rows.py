"""Converts row images from the log's text to JSON values, and finds out who may see a row.

PostgreSQL does both, for many rows at a time. An image is a dict from column names to text (None for null);
values that the log does not have are absent. Each text is cast to its column's type and converted with
`to_jsonb`, as in Realtime, so every type looks the same.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from psycopg import sql

from priorityd.daemon.sandbox.realtime.pgoutput import UNCHANGED, Kind, RowChange, Value
from priorityd.daemon.sandbox.realtime.subscriptions import filter_condition, type_sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from priorityd.daemon.sandbox.realtime.bindings import Filter
    from priorityd.daemon.sandbox.realtime.tables import Table, TableColumn

Image = dict[str, str | None]


def new_image(change: RowChange) -> Image | None:
    """The row after the change; values that an UPDATE left alone come from the old row, if that is logged."""
    if change.new is None:
        return None
    image = _image(change, change.new)
    if change.old is not None and not change.old_is_key_only:
        return _image(change, change.old) | image
    return image


def old_image(change: RowChange) -> Image | None:
    """The row before the change, as far as it is in the replica identity: all of it, or the key."""
    if change.kind is Kind.INSERT:
        return None
    if change.old is not None and not change.old_is_key_only:
        return _image(change, change.old)
    key = _key_names(change)
    # An UPDATE that does not change the key logs no old key, because it equals the new one.
    values = change.old if change.old is not None else change.new or ()
    return {name: value for name, value in _image(change, values).items() if name in key}


def _key_names(change: RowChange) -> set[str]:
    return {column.name for column in change.relation.columns if column.is_key}


def _image(change: RowChange, values: Sequence[Value]) -> Image:
    columns = zip(change.relation.columns, values, strict=True)
    return {column.name: value for column, value in columns if value is not UNCHANGED}


async def to_json_values(
    connection: AsyncConnection[Any], table: Table, images: Sequence[Image], filters: Sequence[Filter]
) -> tuple[list[dict[str, Any]], list[list[bool]]]:
    """Each image's values as JSON, and for each which filters it passes."""
    if not images:
        return [], []
    columns = table.columns
    statement = sql.SQL(
        "select to_jsonb(sandbox_row)::text, array[{conditions}]::boolean[]"
        " from json_to_recordset({rows}::json) as x(n integer, {texts}),"
        " lateral (select {typed}) as sandbox_row order by x.n"
    ).format(
        conditions=_conditions(table, filters),
        rows=_payload(columns, images),
        texts=_texts(columns),
        typed=_typed(columns),
    )
    rows = await (await connection.execute(statement)).fetchall()
    values = [_present(json.loads(text), image) for (text, _), image in zip(rows, images, strict=True)]
    return values, [passes for _, passes in rows]


async def visible_rows(
    connection: AsyncConnection[Any], table: Table, images: Sequence[Image], role: str, claims: dict[str, Any]
) -> set[int]:
    """The indexes of the images whose row, found by its primary key, this role sees at this moment."""
    key = table.primary_key
    same_key = sql.SQL(" and ").join(
        sql.SQL("t.{} = x.{}::{}").format(sql.Identifier(c.name), _cell(i), type_sql(c.type))
        for i, c in enumerate(key)
    )
    statement = sql.SQL(
        "select x.n from json_to_recordset({rows}::json) as x(n integer, {texts})"
        " where exists (select from {table} t where {same_key})"
    ).format(
        rows=_payload(key, images),
        texts=_texts(key),
        table=sql.Identifier(table.schema, table.name),
        same_key=same_key,
    )
    async with connection.transaction():
        await connection.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)",
            [role, json.dumps(claims)],
        )
        rows = await (await connection.execute(statement)).fetchall()
    return {n for (n,) in rows}


def _present(values: dict[str, Any], image: Image) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in image}


def _payload(columns: Sequence[TableColumn], images: Sequence[Image]) -> sql.Literal:
    """The images as a JSON literal, because a query with parameters can't have a % in a name or filter."""
    names = [column.name for column in columns]
    cells = (
        {"n": n} | {f"c{i}": image.get(name) for i, name in enumerate(names)}
        for n, image in enumerate(images)
    )
    return sql.Literal(json.dumps(list(cells)))


def _cell(index: int) -> sql.Identifier:
    return sql.Identifier(f"c{index}")


def _texts(columns: Sequence[TableColumn]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{} text").format(_cell(i)) for i in range(len(columns)))


def _typed(columns: Sequence[TableColumn]) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("x.{}::{} as {}").format(_cell(i), type_sql(column.type), sql.Identifier(column.name))
        for i, column in enumerate(columns)
    )


def _conditions(table: Table, filters: Sequence[Filter]) -> sql.Composed:
    return sql.SQL(", ").join(_condition(table, row_filter) for row_filter in filters)


def _condition(table: Table, row_filter: Filter) -> sql.Composable:
    column = table.by_name.get(row_filter.column)
    if column is None:
        return sql.SQL("false")
    value = sql.SQL("sandbox_row.{}").format(sql.Identifier(column.name))
    return filter_condition(row_filter, value, column.type)
