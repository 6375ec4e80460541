"""A bounded pool of database connections, logged in as `authenticator` like PostgREST's."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, Error
from psycopg.conninfo import make_conninfo

from priorityd.daemon.sandbox.rest.errors import no_connection, pool_exhausted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CONNECT_SECONDS = 5


def as_authenticator(database_url: str) -> str:
    """The URL with PostgREST's login role, for which no connection slots are reserved."""
    return make_conninfo(database_url, user="authenticator")


class Pool:
    """At most `size` connections; waiting longer than `acquire_seconds` for one is an error."""

    def __init__(self, database_url: str, size: int = 10, acquire_seconds: float = 10.0) -> None:
        self._database_url = database_url
        self._acquire_seconds = acquire_seconds
        self._free = asyncio.Semaphore(size)
        self._idle: list[AsyncConnection[Any]] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection outside any transaction. Raises `ApiError` if none is available."""
        await self._acquire()
        try:
            connection = await self._take()
            try:
                yield connection
            finally:
                await self._give_back(connection)
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def _acquire(self) -> None:
        try:
            async with asyncio.timeout(self._acquire_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise pool_exhausted() from error

    async def _take(self) -> AsyncConnection[Any]:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        try:
            return await self._connect()
        except Error as error:
            raise no_connection(error) from error

    async def _connect(self) -> AsyncConnection[Any]:
        # A prepared plan would outlive the function that it calls.
        return await AsyncConnection.connect(
            as_authenticator(self._database_url),
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=_CONNECT_SECONDS,
            application_name="postgrest",
        )

    async def _give_back(self, connection: AsyncConnection[Any]) -> None:
        if connection.closed:
            # Whatever broke this one has most likely broken all: discard them.
            await self.close()
        else:
            self._idle.append(connection)
