"""One call of a function: one transaction, as the caller's role."""

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

MOST_ROWS = 1000
_ISOLATION_LEVELS = {
    "read uncommitted": IsolationLevel.READ_COMMITTED,
    "read committed": IsolationLevel.READ_COMMITTED,
    "repeatable read": IsolationLevel.REPEATABLE_READ,
    "serializable": IsolationLevel.SERIALIZABLE,
}


@dataclass(frozen=True)
class Call:
    """What to call, with which JSON arguments, for whom."""

    function: Function
    arguments: dict[str, Any]
    role: str
    claims: dict[str, Any]
    settings: dict[str, str]
    read_only: bool

    @property
    def isolation(self) -> str:
        """The function's own setting wins over the role's, and both over the database's."""
        settings = self.settings | self.function.hoisted_settings
        return settings.get("default_transaction_isolation", "read committed").lower()


@dataclass(frozen=True)
class Result:
    """The answer as JSON text, and how many rows it has; no text for a function that returns nothing."""

    text: str | None
    rows: int


async def execute(pool: Pool, call: Call) -> Result:
    """Call the function. Raises `ApiError`; then nothing has happened."""
    async with pool.connection() as connection:
        row = None
        while row is None:
            try:
                row = await _try(connection, call)
            except (SerializationFailure, DeadlockDetected):
                # Indefinitely, and as fast as possible, whether the client still waits or not.
                continue
            except Error as error:
                raise from_database(error, call.role) from error
    text, rows = row
    return Result(None if call.function.returns_nothing else text, rows)


async def _try(connection: AsyncConnection[Any], call: Call) -> tuple[str | None, int]:
    # What BEGIN names wins over default_transaction_read_only, and makes it fail on a standby.
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
    """Go on as this role, with its settings and those of what is called, which win."""
    settings = {
        "search_path": '"public", "extensions"',
        **role_settings,
        "role": role,
        "request.jwt.claims": json.dumps(claims),
        **own_settings,
    }
    # All in one statement, in this order, as PostgREST does it: each one more would be a round trip.
    one = sql.SQL("set_config({}, {}, true)")
    each = [one.format(sql.Literal(name), sql.Literal(value)) for name, value in settings.items()]
    await connection.execute(sql.SQL("select {}").format(sql.SQL(", ").join(each)))


def _statement(function: Function, arguments: dict[str, Any]) -> sql.Composed:
    """A query of one row: the result as JSON text and its number of rows."""
    template = {
        (False, False): "select coalesce(to_json(f.r)::text, 'null'), 1 from {source} as f(r)",
        (False, True): "select to_json(f)::text, 1 from {source} as f",
        (True, False): "select coalesce(json_agg(r), '[]')::text, count(*) from ("
        "select f.r from {source} as f(r) limit {limit}) t",
        (True, True): "select coalesce(json_agg(t), '[]')::text, count(*) from ("
        "select f.* from {source} as f limit {limit}) t",
    }[function.returns_set, function.returns_rows]
    return sql.SQL(template).format(source=_source(function, arguments), limit=MOST_ROWS)


def _source(function: Function, arguments: dict[str, Any]) -> sql.Composed:
    """The call in a FROM clause, after a record that turns the JSON arguments into the function's types."""
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
    # The values as a literal: a query with parameters would trip over a % in an argument's name.
    return sql.SQL("json_to_record({}::json) as sandbox_args({}), lateral {}({})").format(
        sql.Literal(json.dumps(arguments)), columns, name, named
    )
