"""Reads the write-ahead log through one temporary logical slot, polled like Realtime does.

A poll takes at most 100 changes, or one transaction, of all published tables together. The next one follows
at once after changes that had subscribers, after 150 to 200 ms if there were other changes, and after 500 ms
if there were none.

The slot belongs to the connection's backend. When that ends, for whatever reason, the slot is gone, and
whatever is committed before the next one exists is never seen, without notice to anybody. The real server
works like that, and the daemon's sweep is there for it.

Reading starts with the first subscription: on a cold server, rows committed between the reply to the join and
the `system` ok are lost.

The publication is checked once a minute. If its tables have changed, all subscriptions are dropped and every
channel subscribes again, which notifies its client. While no table is published there is no slot, though
subscriptions are reported as started; tables published then are noticed at the next check.

Changes polled while over the quota are dropped.

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
        """Return when there is a slot, or no table to have one for; at once with the fault `slotless`."""
        self._wanted.set()
        if not self._faults.is_on("slotless"):
            await self._prepared.wait()

    def lose_slot(self, seconds: float) -> None:
        """Have no slot for this long, then make all channels subscribe again."""
        self._lost_until, self._renews = time.monotonic() + seconds, True

    async def run(self) -> None:
        """Read until cancelled, reconnecting as often as necessary."""
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
        # Prepared statements would become invalid when the tables change.
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
        """Poll while any table is published, and check from time to time which ones are."""
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
        """Publish what was committed since the last poll, and return how long to wait before the next."""
        changes = await self._changes(connection, slot)
        allowed = self._faults.events_per_second(self._settings.events_per_second)
        is_over = self._quota.is_over(time.monotonic(), allowed)
        if not changes:
            return _IDLE_POLL_SECONDS
        if is_over or self._faults.is_on("silence"):
            return 0.0
        sent = await publish(connection, changes, list(self._subscriptions))
        self._quota.count(sent)
        return 0.0 if sent else random.uniform(*_UNWANTED_POLL_SECONDS)  # noqa: S311 - jitter

    async def _changes(self, connection: AsyncConnection[Any], slot: str) -> list[RowChange]:
        cursor = connection.cursor(binary=True)
        await cursor.execute(query("poll_changes"), {"slot": slot, "rows": _ROWS_PER_POLL})
        messages = [message async for (message,) in cursor]
        # Each call is its own decoding session, which describes every relation again.
        return list(Decoder().decode(messages))


async def _published(connection: AsyncConnection[Any]) -> set[int]:
    """The tables of the publication, by oid."""
    return {oid for (oid,) in await (await connection.execute(query("published"))).fetchall()}


def _is_connection_loss(error: Error) -> bool:
    """Whether the connection or the server failed, rather than a publication or a setting being wrong."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


async def _drop(connection: AsyncConnection[Any], slot: str) -> None:
    """Drop the slot now, if the connection still works; its backend would drop it a moment later.

    The database may be dropped next, which an active slot would prevent.
    """
    with suppress(Error, TimeoutError):
        async with asyncio.timeout(_DROP_SECONDS):
            await connection.execute(_DROP, [slot])
