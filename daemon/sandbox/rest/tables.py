"""`/rest/v1/<table>`: select, insert, update and delete, each in one transaction with the key's role.

So PostgreSQL itself enforces row level security and grants. Statements, statuses and headers follow
PostgREST: `src/library/PostgREST/Response.hs`, `Query/QueryBuilder.hs`, `ApiRequest/Payload.hs` and
`RangeQuery.hs` at commit 4834678 (in development for version 17). Unlike there, tables are looked up for each
request, so a new table is served at once.

On Supabase, PostgREST's login role loads `safeupdate` (supabase/postgres,
`migrations/db/migrations/20260413000000_fix-authenticator-session-preload-libraries.sql`), which refuses an
UPDATE or DELETE without WHERE; here it is refused with the same message.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, Error, IsolationLevel, sql
from starlette.responses import Response

from priorityd.daemon.sandbox.queries import query
from priorityd.daemon.sandbox.rest.errors import ApiError, from_database
from priorityd.daemon.sandbox.rest.rpc import MAX_ROWS, become
from priorityd.daemon.sandbox.rest.table_query import TableQuery, not_served

if TYPE_CHECKING:
    from starlette.requests import Request

    from priorityd.daemon.sandbox.rest.pool import Pool
    from priorityd.daemon.sandbox.rest.table_query import Filter, Order

_SINGLE_OBJECT = "application/vnd.pgrst.object+json"
_READING = ("GET", "HEAD")


@dataclass(frozen=True)
class Caller:
    """The role and claims of a request, and the settings of that role."""

    role: str
    claims: dict[str, Any]
    settings: dict[str, str]


@dataclass(frozen=True)
class _Table:
    """A table and the types of its columns by their names."""

    name: str
    types: dict[str, str]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier("public", self.name)

    def column(self, name: str) -> sql.Composable:
        """A column, or all of them."""
        if name == "*":
            return sql.SQL("{}.*").format(self.identifier)
        return sql.Identifier("public", self.name, name)


@dataclass(frozen=True)
class _Rows:
    """The answer as JSON text, its number of rows, and the total number if the request asked for it."""

    text: str
    rows: int
    total: int | None


async def use_table(pool: Pool, caller: Caller, request: Request) -> Response:
    """Answer one request. Raises `ApiError`, in which case nothing was changed."""
    if request.method == "PUT":
        raise not_served("an upsert of one row (PUT)")
    wanted = TableQuery.read(request.query_params.multi_items(), request.headers)
    if request.method not in _READING and wanted.limit is not None:
        raise not_served("a limit for changes")
    body = await request.body()
    single = _SINGLE_OBJECT in request.headers.get("accept", "")
    async with pool.connection() as connection:
        try:
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
            await connection.set_read_only(request.method in _READING)
            async with connection.transaction():
                table = await _look_up(connection, request.path_params["table"])
                statement = _statement(request, table, wanted, body)
                await become(connection, caller.role, caller.claims, caller.settings, {})
                row = await (await connection.execute(statement)).fetchone()
                found = _Rows(*(row or ("[]", 0, None)))
                if single and found.rows != 1 and (wanted.wants_rows or request.method in _READING):
                    # Raised inside the transaction, so that the change is rolled back.
                    raise _not_single(found.rows)
        except Error as error:
            raise from_database(error, caller.role) from error
    return _answer(request, wanted, found, single=single)


async def _look_up(connection: AsyncConnection[Any], name: str) -> _Table:
    await connection.execute("set local search_path = ''")
    columns = await (await connection.execute(query("columns_of_table"), (name,))).fetchall()
    if not columns:
        message = f"Could not find the table 'public.{name}' in the schema cache"
        raise ApiError(404, "PGRST205", message)
    return _Table(name, dict(columns))


def _statement(request: Request, table: _Table, wanted: TableQuery, body: bytes) -> sql.Composed:
    """A query that returns one row: the answer as JSON text, its number of rows, and the total number."""
    change: sql.Composed | None
    match request.method:
        case "GET" | "HEAD":
            return _read(table, wanted)
        case "POST":
            change = _insert(table, *_payload(request, wanted, body))
        case "PATCH":
            change = _update(table, wanted, *_payload(request, wanted, body))
        case "DELETE":
            where = _required_where(table, wanted, "DELETE")
            change = sql.SQL("delete from {} {}").format(table.identifier, where)
        case method:
            raise ApiError(405, "PGRST117", f"Unsupported HTTP method: {method}")
    return _changed(table, wanted, change)


def _read(table: _Table, wanted: TableQuery) -> sql.Composed:
    limit = min(MAX_ROWS, wanted.limit if wanted.limit is not None else MAX_ROWS)
    where = _where(table, wanted.filters)
    counted = sql.SQL("(select count(*) from {} {})").format(table.identifier, where)
    return sql.SQL(
        "select coalesce(json_agg(t), '[]')::text, count(*), {total} from ("
        "select {columns} from {table} {where} {order} limit {limit}) t"
    ).format(
        total=counted if wanted.wants_count else sql.SQL("null::bigint"),
        columns=_selected(table, wanted),
        table=table.identifier,
        where=where,
        order=_order(table.column, wanted.order),
        limit=limit,
    )


def _changed(table: _Table, wanted: TableQuery, change: sql.Composed | None) -> sql.Composed:
    """The change and the rows that it returns, if wanted; reading them needs the privileges and policies."""
    returned = _selected(table, wanted) if wanted.wants_rows else sql.SQL("1")
    if change is None:
        changed = sql.SQL("select {} from {} where false").format(returned, table.identifier)
    else:
        changed = sql.SQL("{} returning {}").format(change, returned)
    return sql.SQL(
        "with changed as ({changed}) "
        "select coalesce(json_agg(t), '[]')::text, count(*), {total} from (select * from changed {order}) t"
    ).format(
        changed=changed,
        total=sql.SQL("count(*)" if wanted.wants_count else "null::bigint"),
        order=_order(sql.Identifier, wanted.order) if wanted.wants_rows else sql.SQL(""),
    )


def _insert(table: _Table, columns: list[str], rows: list[Any]) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    target = sql.SQL("({})").format(names) if columns else sql.SQL("")
    return sql.SQL("insert into {} {} select {} from {}").format(
        table.identifier, target, names, _records(table, columns, rows)
    )


def _update(table: _Table, wanted: TableQuery, columns: list[str], rows: list[Any]) -> sql.Composed | None:
    """None if the body sets nothing, in which case nothing is changed."""
    if not columns:
        return None
    assigned = sql.SQL(", ").join(sql.SQL("{0} = body.{0}").format(sql.Identifier(each)) for each in columns)
    return sql.SQL("update {} set {} from {} {}").format(
        table.identifier,
        assigned,
        _records(table, columns, rows[:1]),
        _required_where(table, wanted, "UPDATE"),
    )


def _records(table: _Table, columns: list[str], rows: list[Any]) -> sql.Composed:
    for column in columns:
        if column not in table.types:
            message = f"Could not find the '{column}' column of '{table.name}' in the schema cache"
            raise ApiError(400, "PGRST204", message)
    values = sql.Literal(json.dumps(rows))
    if not columns:
        return sql.SQL("json_array_elements({}::json)").format(values)
    typed = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(each), sql.SQL(table.types[each])) for each in columns
    )
    return sql.SQL("json_to_recordset({}::json) as body({})").format(values, typed)


def _where(table: _Table, filters: tuple[Filter, ...]) -> sql.Composable:
    if not filters:
        return sql.SQL("")
    return sql.SQL("where {}").format(sql.SQL(" and ").join(_condition(table, each) for each in filters))


def _required_where(table: _Table, wanted: TableQuery, command: str) -> sql.Composable:
    if not wanted.filters:
        raise ApiError(400, "21000", f"{command} requires a WHERE clause")
    return _where(table, wanted.filters)


def _condition(table: _Table, each: Filter) -> sql.Composed:
    column = table.column(each.column)
    if not each.several:
        return sql.SQL("{} = {}").format(column, sql.Literal(each.values[0]))
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in each.values)
    listed = "{" + ",".join(f'"{value}"' for value in escaped) + "}"
    return sql.SQL("{} = any ({})").format(column, sql.Literal(listed))


def _selected(table: _Table, wanted: TableQuery) -> sql.Composed:
    each = [
        sql.SQL("{} as {}").format(table.column(column), sql.Identifier(alias))
        if alias
        else table.column(column)
        for column, alias in wanted.select
    ]
    return sql.SQL(", ").join(each)


def _order(column: Any, keys: tuple[Order, ...]) -> sql.Composable:
    if not keys:
        return sql.SQL("")
    ways = {None: "", "nullsfirst": " nulls first", "nullslast": " nulls last"}
    each = [
        sql.SQL("{}" + (" desc" if key.descending else "") + ways[key.nulls]).format(column(key.column))
        for key in keys
    ]
    return sql.SQL("order by {}").format(sql.SQL(", ").join(each))


def _payload(request: Request, wanted: TableQuery, body: bytes) -> tuple[list[str], list[Any]]:
    """The columns that the body sets and its rows."""
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(400, "PGRST102", f"Content-Type not acceptable: {media_type}")
    try:
        read = json.loads(body)
    except ValueError as error:
        raise ApiError(400, "PGRST102", "Empty or invalid json") from error
    rows = [read] if isinstance(read, dict) else read if isinstance(read, list) else []
    if wanted.columns is not None:
        return list(wanted.columns), rows
    columns = sorted(rows[0]) if rows and isinstance(rows[0], dict) else []
    if not all(isinstance(row, dict) and sorted(row) == columns for row in rows):
        raise ApiError(400, "PGRST102", "All object keys must match")
    return columns, rows


def _not_single(rows: int) -> ApiError:
    message = "Cannot coerce the result to a single JSON object"
    return ApiError(406, "PGRST116", message, f"The result contains {rows} rows")


def _answer(request: Request, wanted: TableQuery, found: _Rows, *, single: bool) -> Response:
    headers = {"Content-Range": _content_range(request.method, found)}
    if wanted.preferred:
        headers["Preference-Applied"] = wanted.preferred
    reading = request.method in _READING
    if not reading and not wanted.wants_rows:
        return Response(status_code=201 if request.method == "POST" else 204, headers=headers)
    # Stripping the brackets of a one-element list leaves the element unchanged, to the last digit.
    text = found.text[1:-1] if single else found.text
    partial = reading and found.total is not None and found.rows < found.total
    status = 206 if partial else 201 if request.method == "POST" else 200
    media_type = _SINGLE_OBJECT if single else "application/json"
    return Response("" if request.method == "HEAD" else text, status, headers, f"{media_type}; charset=utf-8")


def _content_range(method: str, found: _Rows) -> str:
    total = "*" if found.total is None else str(found.total)
    counts = method in (*_READING, "PATCH") and found.rows
    return f"0-{found.rows - 1}/{total}" if counts else f"*/{total}"
