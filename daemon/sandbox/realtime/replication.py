"""The reader of the write-ahead log: one temporary logical slot, polled as Realtime polls it.

That is at most 100 changes at a time or one transaction, of all published tables together; at once again
after changes that somebody had subscribed to, after 150 to 200 ms after any others, else after 500 ms.

The slot belongs to the connection's backend. When that ends, for whatever reason, the slot is gone, and what
is committed until the next one exists is never seen; nobody is told. That is how the real one works and what
the daemon's sweep is for.

It starts with the first subscription: on a cold server there is a moment between the join's reply and the
`system` ok in which rows are lost.

Once a minute it looks at the publication. If its tables are others, all subscriptions are dropped and every
channel subscribes again, which its client is told. While none is published there is no slot, and what is
published then is heard of only when it next looks, though subscriptions are said to have started.

Over the quota what is polled is dropped.

Source: `replication_poller.ex`, `subscription_manager.ex` of supabase/realtime v2.129.8.
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
from priorityd.daemon.sandbox.realtime.quota import Quota

if TYPE_CHECKING:
    from priorityd.daemon.sandbox.faults import Faults
    from priorityd.daemon.sandbox.realtime.pgoutput import RowChange
    from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings
    from priorityd.daemon.sandbox.realtime.subscriptions import Subscriptions

_LOG = logging.getLogger(__name__)

_UNWANTED_POLL_SECONDS = (0.15, 0.2)
_IDLE_POLL_SECONDS = 0.5
_SLOTLESS_SECONDS = 0.1
_FIRST_RETRY_SECONDS = 0.3
_LONGEST_RETRY_SECONDS = 5.0
_DROP_SECONDS = 2.0
# A poll stops at the end of the transaction in which it reaches this many rows.
_ROWS_PER_POLL = 100
_DROP = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s"
_CREATE = "select pg_create_logical_replication_slot(%s, 'pgoutput', temporary => true)"


class Replication:
    """Polls the log and publishes to the active subscriptions, for as long as `run` runs."""

    def __init__(
        self, database_url: str, subscriptions: Subscriptions, faults: Faults, settings: RealtimeSettings
    ) -> None:
        self._database_url = database_url
        self._subscriptions = subscriptions
        self._faults = faults
        self._settings = settings
        self._quota = Quota(time.monotonic())
        self._wanted = asyncio.Event()
        self._prepared = asyncio.Event()
        self._lost_until = 0.0
        self._renews = False

    async def live(self) -> None:
        """Return when there is a slot, or nothing to have one for; at once if nobody is to know of none."""
        self._wanted.set()
        if not self._faults.is_on("slotless"):
            await self._prepared.wait()

    def lose_slot(self, seconds: float) -> None:
        """Be without a slot for this long, then have all channels subscribe again."""
        self._lost_until, self._renews = time.monotonic() + seconds, True

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
            if self._prepared.is_set():
                retry_seconds = _FIRST_RETRY_SECONDS
                self._prepared.clear()
            jittered = retry_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
            await asyncio.sleep(max(jittered, self._lost_until - time.monotonic()))
            while self._faults.is_on("slotless"):  # noqa: ASYNC110 - a fault has no event of its own
                await asyncio.sleep(_SLOTLESS_SECONDS)
            retry_seconds = min(retry_seconds * 2, _LONGEST_RETRY_SECONDS)

    async def _read_log(self) -> None:
        # Prepared statements would outlive the shape of the tables that they are about.
        connection = await AsyncConnection.connect(
            self._database_url, autocommit=True, prepare_threshold=None, application_name="realtime_rls"
        )
        async with connection:
            slot = f"supabase_realtime_replication_slot_{secrets.token_hex(4)}"
            await connection.execute("set timezone = 'UTC'")
            try:
                await self._follow(connection, slot)
            finally:
                await _drop(connection, slot)

    async def _follow(self, connection: AsyncConnection[Any], slot: str) -> None:
        """Poll as long as there is something published, and look from time to time for what is."""
        published, has_slot = await _published(connection), False
        while not self._is_interrupted():
            if published and not has_slot:
                await connection.execute(_CREATE, [slot])
            elif has_slot and not published:
                await _drop(connection, slot)
            has_slot = bool(published)
            self._prepared.set()
            if self._renews:
                self._renews = False
                self._subscriptions.renew()
            await self._poll_until_due(connection, slot if has_slot else None)
            before, published = published, await _published(connection)
            self._renews = self._renews or published != before

    async def _poll_until_due(self, connection: AsyncConnection[Any], slot: str | None) -> None:
        due_at = time.monotonic() + self._settings.publication_seconds
        while time.monotonic() < due_at and not self._is_interrupted():  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(_IDLE_POLL_SECONDS if slot is None else await self._poll(connection, slot))

    def _is_interrupted(self) -> bool:
        return time.monotonic() < self._lost_until or self._faults.is_on("slotless")

    async def _poll(self, connection: AsyncConnection[Any], slot: str) -> float:
        """Publish what was committed since the last poll; returns how long to wait for the next."""
        changes = await self._changes(connection, slot)
        allowed = self._faults.events_per_second(self._settings.events_per_second)
        is_over = self._quota.is_over(time.monotonic(), allowed)
        if not changes:
            return _IDLE_POLL_SECONDS
        if is_over or self._faults.is_on("silence"):
            return 0.0
        told = await publish(connection, changes, list(self._subscriptions))
        self._quota.count(told)
        return 0.0 if told else random.uniform(*_UNWANTED_POLL_SECONDS)  # noqa: S311 - jitter

    async def _changes(self, connection: AsyncConnection[Any], slot: str) -> list[RowChange]:
        cursor = connection.cursor(binary=True)
        await cursor.execute(query("poll_changes"), {"slot": slot, "rows": _ROWS_PER_POLL})
        messages = [message async for (message,) in cursor]
        # Each call is a decoding session of its own: it describes every relation again.
        return list(Decoder().decode(messages))


async def _published(connection: AsyncConnection[Any]) -> set[int]:
    """The tables of the publication, by oid."""
    return {oid for (oid,) in await (await connection.execute(query("published"))).fetchall()}


def _is_connection_loss(error: Error) -> bool:
    """Whether the server or the way to it went away, rather than a publication or a setting being wrong."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


async def _drop(connection: AsyncConnection[Any], slot: str) -> None:
    """Drop the slot now, if the connection still can: its backend would be a moment late.

    The database may be dropped next, which an active slot prevents.
    """
    with suppress(Error, TimeoutError):
        async with asyncio.timeout(_DROP_SECONDS):
            await connection.execute(_DROP, [slot])
