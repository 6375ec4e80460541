"""Calls a function, in one transaction with the caller's role."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, Error, IsolationLevel, sql
from psycopg.errors import DeadlockDetected, SerializationFailure

from priorityd.daemon.sandbox.rest.errors import from_database

if TYPE_CHECKING:
    from priorityd.daemon.sandbox.rest.pool import Pool
    from priorityd.daemon.sandbox.rest.schema_cache import Function

MAX_ROWS = 1000
_ISOLATION_LEVELS = {
    "read uncommitted": IsolationLevel.READ_COMMITTED,
    "read committed": IsolationLevel.READ_COMMITTED,
    "repeatable read": IsolationLevel.REPEATABLE_READ,
    "serializable": IsolationLevel.SERIALIZABLE,
}


@dataclass(frozen=True)
class Call:
    """The function to call, its JSON arguments, and the caller."""

    function: Function
    arguments: dict[str, Any]
    role: str
    claims: dict[str, Any]
    settings: dict[str, str]
    read_only: bool

    @property
    def isolation(self) -> str:
        """The isolation level: the function's setting, otherwise the role's, otherwise the default."""
        settings = self.settings | self.function.hoisted_settings
        return settings.get("default_transaction_isolation", "read committed").lower()


@dataclass(frozen=True)
class Result:
    """The answer as JSON text and its number of rows; no text for a function that returns nothing."""

    text: str | None
    rows: int


async def execute(pool: Pool, call: Call) -> Result:
    """Call the function. Raises `ApiError`, in which case nothing was changed."""
    async with pool.connection() as connection:
        row = None
        while row is None:
            try:
                row = await _try(connection, call)
            except (SerializationFailure, DeadlockDetected):
                # PostgREST retries without end or pause, even if the client has left.
                continue
            except Error as error:
                raise from_database(error, call.role) from error
    text, rows = row
    return Result(None if call.function.returns_nothing else text, rows)


async def _try(connection: AsyncConnection[Any], call: Call) -> tuple[str | None, int]:
    # BEGIN with READ WRITE overrides default_transaction_read_only, and fails on a standby.
    await connection.set_isolation_level(_ISOLATION_LEVELS[call.isolation])
    await connection.set_read_only(call.read_only)
    async with connection.transaction():
        await become(connection, call.role, call.claims, call.settings, call.function.hoisted_settings)
        cursor = await connection.execute(_statement(call.function, call.arguments))
        return await cursor.fetchone() or (None, 0)


async def become(
    connection: AsyncConnection[Any],
    role: str,
    claims: dict[str, Any],
    role_settings: dict[str, str],
    own_settings: dict[str, str],
) -> None:
    """Switch to this role, with its settings; the settings of the function called take precedence."""
    settings = {
        "search_path": '"public", "extensions"',
        **role_settings,
        "role": role,
        "request.jwt.claims": json.dumps(claims),
        **own_settings,
    }
    # All in one statement and in this order, as in PostgREST: each further statement would be a round trip.
    one = sql.SQL("set_config({}, {}, true)")
    each = [one.format(sql.Literal(name), sql.Literal(value)) for name, value in settings.items()]
    await connection.execute(sql.SQL("select {}").format(sql.SQL(", ").join(each)))


def _statement(function: Function, arguments: dict[str, Any]) -> sql.Composed:
    """A query that returns one row: the result as JSON text, and its number of rows."""
    template = {
        (False, False): "select coalesce(to_json(f.r)::text, 'null'), 1 from {source} as f(r)",
        (False, True): "select to_json(f)::text, 1 from {source} as f",
        (True, False): "select coalesce(json_agg(r), '[]')::text, count(*) from ("
        "select f.r from {source} as f(r) limit {limit}) t",
        (True, True): "select coalesce(json_agg(t), '[]')::text, count(*) from ("
        "select f.* from {source} as f limit {limit}) t",
    }[function.returns_set, function.returns_rows]
    return sql.SQL(template).format(source=_source(function, arguments), limit=MAX_ROWS)


def _source(function: Function, arguments: dict[str, Any]) -> sql.Composed:
    """The call in a FROM clause, after a record that casts the JSON arguments to the function's types."""
    name = sql.Identifier("public", function.name)
    if not arguments:
        return sql.SQL("{}()").format(name)
    types = function.type_of
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(argument), sql.SQL(types[argument])) for argument in arguments
    )
    named = sql.SQL(", ").join(
        sql.SQL("{0} => sandbox_args.{0}").format(sql.Identifier(argument)) for argument in arguments
    )
    # The values are a literal, because a query with parameters can't have a % in an argument's name.
    return sql.SQL("json_to_record({}::json) as sandbox_args({}), lateral {}({})").format(
        sql.Literal(json.dumps(arguments)), columns, name, named
    )
