"""The subscriptions: which client is subscribed to what.

A subscription is made in two steps. `Subscriptions.check` asks the database whether each binding is valid:
the role exists, the tables are in the publication, the filter's column can be read and its value has the
column's type. It raises `BadBinding` with Realtime's message for the first that is not, so one bad binding
spoils all. `activate` then puts the subscription into effect. It does not await anything, so the caller can
queue the `system` message in the same step, and no change can overtake it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import AsyncConnection, Error, OperationalError, sql

from priorityd.daemon.sandbox.queries import query
from priorityd.daemon.sandbox.realtime.bindings import (
    EVERYTHING,
    OPERATORS,
    BadBinding,
    Binding,
    Filter,
    Target,
    description,
    target,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from priorityd.daemon.sandbox.keys import Claims
    from priorityd.daemon.sandbox.realtime.pgoutput import Kind

_CONNECT_SECONDS = 5
_MOST_VALUES = 100


@dataclass(frozen=True)
class Interest:
    """One binding's interest in one table."""

    binding_id: int
    table_oid: int
    filter: Filter | None
    event: str

    def is_in(self, kind: Kind) -> bool:
        """Whether this kind of change is wanted."""
        return self.event in (EVERYTHING, kind.value)


@dataclass(eq=False)
class Subscription:
    """A channel's interests under one token, and where its changes go.

    `deliver(data, ids)` is called with a change as JSON text and the ids of the bindings that it matches;
    `renew` makes the channel subscribe again.
    """

    claims: Claims
    interests: tuple[Interest, ...]
    deliver: Callable[[str, list[int]], None]
    renew: Callable[[], None]


class Subscriptions:
    """The active subscriptions, and the check that a new one must pass."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._active: dict[Subscription, None] = {}

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._active)

    def activate(self, subscription: Subscription) -> None:
        """Deliver changes to it from now on."""
        self._active[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Deliver no more changes to it; removing it twice is harmless."""
        self._active.pop(subscription, None)

    def renew(self) -> None:
        """Drop all at once and make each channel subscribe again, which notifies its client."""
        dropped, self._active = list(self._active), {}
        for subscription in dropped:
            subscription.renew()

    async def database_is_reachable(self) -> bool:
        """Whether a connection can be made now."""
        try:
            connection = await self._connect()
        except OperationalError:
            return False
        await connection.close()
        return True

    async def check(self, bindings: list[Binding], claims: Claims) -> tuple[Interest, ...]:
        """The interests that these bindings mean for this token.

        Raises `BadBinding` with the reason, and `psycopg.OperationalError` if the database is unavailable.
        """
        wanted = [(binding, target(binding)) for binding in bindings]
        async with await self._connect() as connection:
            found: list[Interest] = []
            for binding, goal in wanted:
                found += await _interests(connection, binding, goal, claims.role)
            return tuple(found)

    async def _connect(self) -> AsyncConnection:
        return await AsyncConnection.connect(
            self._database_url,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            application_name="realtime_subscription_manager",
        )


async def _interests(
    connection: AsyncConnection, binding: Binding, goal: Target, role: str
) -> list[Interest]:
    try:
        tables = await _tables(connection, goal, role)
    except OperationalError:
        raise
    except Error as error:
        raise BadBinding(
            "Unable to subscribe to changes with given parameters. An exception happened so please check "
            f"your connect parameters: {description(goal)}. Exception: {_postgrex_message(error)}"
        ) from error
    if not tables:
        raise BadBinding(
            "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the "
            f"given connect parameters: {description(goal)}"
        )
    return [Interest(binding.id, oid, goal.filter, goal.event) for oid in tables]


async def _tables(connection: AsyncConnection, goal: Target, role: str) -> list[int]:
    # Raises 42704 if the role does not exist, before anything else is checked.
    await connection.execute("select quote_ident(%s::text)::regrole", [role])
    column = goal.filter.column if goal.filter else None
    parameters = {"column": column, "role": role, "schema": goal.schema or EVERYTHING, "table": goal.table}
    rows = await (await connection.execute(query("published_tables"), parameters)).fetchall()
    for _, column_name, column_type in rows:
        await _try_filter(connection, goal.filter, column_name, column_type)
    return [oid for oid, _, _ in rows]


async def _try_filter(
    connection: AsyncConnection, row_filter: Filter | None, column: str | None, column_type: str | None
) -> None:
    """Raise the error that the filter would cause for a row."""
    if row_filter is None:
        return
    if column is None or column_type is None:
        raise _RefusedError(f"invalid column for filter {row_filter.column}")
    await connection.execute(sql.SQL("select {}").format(filter_value(row_filter, column_type)))
    if row_filter.operator == "in" and row_filter.value.count(",") >= _MOST_VALUES:
        raise _RefusedError(f"too many values for `in` filter. Maximum {_MOST_VALUES}")


def filter_value(row_filter: Filter, column_type: str) -> sql.Composed:
    """The filter's value, cast to the column's type (or an array of it)."""
    cast_type = f"{column_type}[]" if row_filter.operator == "in" else column_type
    return sql.SQL("{}::{}").format(sql.Literal(row_filter.value), type_sql(cast_type))


def type_sql(type_name: str) -> sql.SQL:
    """A type's name as SQL. It comes from format_type(), which quotes names as necessary."""
    return sql.SQL(type_name)


def filter_condition(row_filter: Filter, column: sql.Composable, column_type: str) -> sql.Composed:
    """Whether a value of the column passes the filter; null passes none."""
    operator = sql.SQL(OPERATORS[row_filter.operator])
    value = filter_value(row_filter, column_type)
    return sql.SQL("coalesce({} {} ({}), false)").format(column, operator, value)


class _RefusedError(Error):
    """Raised where Realtime's own check raises an exception inside the database."""


def _postgrex_message(error: Error) -> str:
    """An error as Postgrex formats it: `ERROR 22P02 (invalid_text_representation) invalid input …`."""
    if isinstance(error, _RefusedError):
        return f"ERROR P0001 (raise_exception) {error}"
    condition = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    return f"ERROR {error.sqlstate} ({condition}) {error.diag.message_primary}"
