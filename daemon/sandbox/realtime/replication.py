"""The reader of the write-ahead log: one temporary logical slot, polled as Realtime polls it.

That is every 100 ms while changes come and every 500 ms else, at most 100 changes at a time or one
transaction, of all published tables together (v2.122.0 and v2.129.8, measured; `poll_max_changes` in
`replication_poller.ex`).

The slot belongs to the connection's backend. When that ends, for whatever reason, the slot is gone, and what
is committed until the next one exists is never seen; nobody is told. That is how the real one works and what
the daemon's sweep is for.

It starts with the first subscription: on a cold server there is a moment between the join's reply and the
`system` ok in which rows are lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, Error

from priorityd.daemon.sandbox.queries import query
from priorityd.daemon.sandbox.realtime.changes import publish
from priorityd.daemon.sandbox.realtime.pgoutput import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from priorityd.daemon.sandbox.realtime.pgoutput import RowChange
    from priorityd.daemon.sandbox.realtime.subscriptions import Subscriptions

_LOG = logging.getLogger(__name__)

_BUSY_POLL_SECONDS = 0.1
_IDLE_POLL_SECONDS = 0.5
_FIRST_RETRY_SECONDS = 0.3
_LONGEST_RETRY_SECONDS = 5.0
_DROP_SECONDS = 2.0
# A poll stops at the end of the transaction in which it reaches this many rows.
_ROWS_PER_POLL = 100


class Replication:
    """Polls the log and publishes to the active subscriptions, for as long as `run` runs."""

    def __init__(
        self,
        database_url: str,
        subscriptions: Subscriptions,
        *,
        is_silent: Callable[[], bool],
        is_slotless: Callable[[], bool],
    ) -> None:
        self._database_url = database_url
        self._subscriptions = subscriptions
        self._is_silent = is_silent
        self._is_slotless = is_slotless
        self._wanted = asyncio.Event()
        self._live = asyncio.Event()
        self._lost_until = 0.0
        self._announce = False

    async def live(self) -> None:
        """Return when there is a slot, asking for one first; at once if nobody is to know of none."""
        self._wanted.set()
        if not self._is_slotless():
            await self._live.wait()

    def lose_slot(self, seconds: float) -> None:
        """Be without a slot for this long, then tell all subscribers that changes flow again."""
        self._lost_until, self._announce = time.monotonic() + seconds, True

    async def run(self) -> None:
        """Read until cancelled, over any number of lost connections."""
        await self._wanted.wait()
        retry_seconds = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._read_log()
            except Error as error:
                level = logging.DEBUG if _is_connection_loss(error) else logging.WARNING
                _LOG.log(level, "changes cannot be read: %s", error)
            if self._live.is_set():
                retry_seconds = _FIRST_RETRY_SECONDS
                self._live.clear()
            jittered = retry_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
            await asyncio.sleep(max(jittered, self._lost_until - time.monotonic()))
            while self._is_slotless():  # noqa: ASYNC110 - a fault has no event of its own
                await asyncio.sleep(_BUSY_POLL_SECONDS)
            retry_seconds = min(retry_seconds * 2, _LONGEST_RETRY_SECONDS)

    async def _read_log(self) -> None:
        # Prepared statements would outlive the shape of the tables that they are about.
        connection = await AsyncConnection.connect(
            self._database_url, autocommit=True, prepare_threshold=None, application_name="realtime_rls"
        )
        async with connection:
            slot = f"supabase_realtime_replication_slot_{secrets.token_hex(4)}"
            await connection.execute("set timezone = 'UTC'")
            await connection.execute(
                "select pg_create_logical_replication_slot(%s, 'pgoutput', temporary => true)", [slot]
            )
            self._live.set()
            if self._announce:
                self._announce = False
                for subscription in self._subscriptions:
                    subscription.announce()
            try:
                await self._poll_until_lost(connection, slot)
            finally:
                await _drop(connection, slot)

    async def _poll_until_lost(self, connection: AsyncConnection[Any], slot: str) -> None:
        while time.monotonic() >= self._lost_until and not self._is_slotless():
            found = await self._poll(connection, slot)
            await asyncio.sleep(_BUSY_POLL_SECONDS if found else _IDLE_POLL_SECONDS)

    async def _poll(self, connection: AsyncConnection[Any], slot: str) -> bool:
        """Publish what was committed since the last poll; True if there was anything."""
        changes = await self._changes(connection, slot)
        if changes and not self._is_silent():
            await publish(connection, changes, list(self._subscriptions))
        return bool(changes)

    async def _changes(self, connection: AsyncConnection[Any], slot: str) -> list[RowChange]:
        cursor = connection.cursor(binary=True)
        await cursor.execute(query("poll_changes"), {"slot": slot, "rows": _ROWS_PER_POLL})
        messages = [message async for (message,) in cursor]
        # Each call is a decoding session of its own: it describes every relation again.
        return list(Decoder().decode(messages))


def _is_connection_loss(error: Error) -> bool:
    """Whether the server or the way to it went away, rather than a publication or a setting being wrong."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


async def _drop(connection: AsyncConnection[Any], slot: str) -> None:
    """Drop the slot now, if the connection still can: its backend would be a moment late.

    The database may be dropped next, which an active slot prevents.
    """
    with suppress(Error, TimeoutError):
        async with asyncio.timeout(_DROP_SECONDS):
            await connection.execute("select pg_drop_replication_slot(%s)", [slot])
