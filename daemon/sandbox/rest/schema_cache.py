"""The functions that can be called, as of the last time the cache was loaded.

Like PostgREST's, the cache is loaded at the start, on `NOTIFY pgrst`, when the listening connection has to be
rebuilt, and after each 503. Until then a new function is unknown, and a dropped one is still called. While
the cache can't be loaded, nothing can be called; the delay between attempts doubles each time, so after a
long outage PostgREST is back up to 32 s later than PostgreSQL.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection, OperationalError
from psycopg.errors import ReadOnlySqlTransaction
from psycopg.rows import class_row

from priorityd.daemon.sandbox.queries import query
from priorityd.daemon.sandbox.rest.errors import ApiError, no_schema_cache
from priorityd.daemon.sandbox.rest.pool import as_authenticator

_LOG = logging.getLogger(__name__)

_CONNECT_SECONDS = 5
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 32.0
_HOISTED = ("statement_timeout", "plan_filter.statement_cost_limit", "default_transaction_isolation")
_MIN_SIMILARITY = 0.75
"""How similar a name must be to be suggested."""


@dataclass(frozen=True)
class Function:
    """A function according to the catalog; arguments from index `required` on have defaults."""

    name: str
    returns_set: bool
    returns_nothing: bool
    returns_rows: bool
    is_volatile: bool
    names: list[str]
    types: list[str]
    required: int
    settings: list[str]

    def takes(self, names: set[str]) -> bool:
        """Whether it can be called with exactly these arguments."""
        return set(self.names[: self.required]) <= names <= set(self.names)

    @property
    def type_of(self) -> dict[str, str]:
        """The types of the arguments by their names."""
        return dict(zip(self.names, self.types, strict=True))

    @property
    def hoisted_settings(self) -> dict[str, str]:
        """Those of its settings that PostgREST applies to the whole transaction."""
        pairs = dict(setting.split("=", 1) for setting in self.settings)
        return {name: value for name, value in pairs.items() if name.lower() in _HOISTED}


@dataclass
class SchemaCache:
    """The cache, which `run` keeps up to date."""

    database_url: str
    _functions: dict[str, list[Function]] = field(default_factory=dict)
    _role_settings: dict[str, dict[str, str]] = field(default_factory=dict)
    _loaded: asyncio.Event = field(default_factory=asyncio.Event)

    _doubted: asyncio.Event = field(default_factory=asyncio.Event)
    _retry_seconds: float = _FIRST_RETRY_SECONDS

    async def run(self) -> None:
        """Load the cache, and reload it when notified, until cancelled."""
        while True:
            self._doubted.clear()
            try:
                await self._listen()
            except OperationalError as error:
                _LOG.debug("the schema cache can't be loaded: %s", error)
                self._loaded.clear()
                await asyncio.sleep(self._retry_seconds)
                self._retry_seconds = min(2 * self._retry_seconds, _LONGEST_RETRY_SECONDS)

    def doubt(self) -> None:
        """Reload it over a new connection, because an answer says that the database is unavailable."""
        if self._loaded.is_set():
            self._doubted.set()

    async def loaded(self) -> None:
        """Return when it is loaded."""
        await self._loaded.wait()

    def find(self, name: str, arguments: set[str]) -> Function:
        """The function that takes exactly these arguments. Raises `ApiError`."""
        if not self._loaded.is_set():
            raise no_schema_cache()
        overloads = self._functions.get(name, [])
        matches = [function for function in overloads if function.takes(arguments)]
        if not matches:
            raise self._not_found(name, arguments, overloads)
        if len(matches) > 1:
            raise _ambiguous(matches)
        return matches[0]

    def role_settings(self, role: str) -> dict[str, str]:
        """The settings of an API role."""
        return self._role_settings.get(role, {})

    async def _listen(self) -> None:
        connection = await AsyncConnection.connect(
            as_authenticator(self.database_url),
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            application_name="postgrest_listener",
        )
        async with connection:
            listens = await _listens(connection)
            while True:
                await self._load(connection)
                self._retry_seconds = _FIRST_RETRY_SECONDS
                if not listens:
                    await asyncio.sleep(_FIRST_RETRY_SECONDS)
                    return
                if await self._wait_for_news(connection):
                    return

    async def _wait_for_news(self, connection: AsyncConnection[Any]) -> bool:
        """Wait for a notification or a call of `doubt`; true for the latter."""

        async def notified() -> None:
            # Only one: the connection can't be used for anything else while it listens.
            async for _ in connection.notifies(stop_after=1):
                pass

        waits = [asyncio.ensure_future(notified()), asyncio.ensure_future(self._doubted.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                await waits[0]
            return self._doubted.is_set()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _load(self, connection: AsyncConnection[Any]) -> None:
        # With an empty search path, format_type() qualifies the names of the application's own types.
        await connection.execute("select set_config('search_path', '', false)")
        cursor = connection.cursor(row_factory=class_row(Function))
        functions: dict[str, list[Function]] = defaultdict(list)
        for function in await (await cursor.execute(query("functions"))).fetchall():
            functions[function.name].append(function)
        settings: dict[str, dict[str, str]] = defaultdict(dict)
        for role, name, value in await (await connection.execute(query("role_settings"))).fetchall():
            settings[role][name] = value
        self._functions, self._role_settings = functions, settings
        self._loaded.set()

    def _not_found(self, name: str, arguments: set[str], overloads: list[Function]) -> ApiError:
        names = ", ".join(sorted(arguments))
        shown = f"({names})" if names else " without parameters"
        searched = (
            f" with parameter{'s' if len(arguments) > 1 else ''} {names}" if names else " without parameters"
        )
        return ApiError(
            404,
            "PGRST202",
            f"Could not find the function public.{name}{shown} in the schema cache",
            f"Searched for the function public.{name}{searched} or with a single unnamed json/jsonb "
            "parameter, but no matches were found in the schema cache.",
            self._suggestion(name, arguments, overloads),
        )

    def _suggestion(self, name: str, arguments: set[str], overloads: list[Function]) -> str | None:
        if overloads:
            wanted, score = f"({', '.join(sorted(arguments))})", 0.33
            candidates = {f"({', '.join(sorted(function.names))})": name for function in overloads}
            close = difflib.get_close_matches(wanted, candidates, 1, score)
            return f"Perhaps you meant to call the function public.{name}{close[0]}" if close else None
        close = difflib.get_close_matches(name, self._functions, 1, _MIN_SIMILARITY)
        return f"Perhaps you meant to call the function public.{close[0]}" if close else None


async def _listens(connection: AsyncConnection[Any]) -> bool:
    """Listen for notifications. False on a standby, which refuses; calls are still served from the cache."""
    try:
        await connection.execute("listen pgrst")
    except ReadOnlySqlTransaction:
        return False
    return True


def _ambiguous(functions: list[Function]) -> ApiError:
    shown = ", ".join(
        f"public.{f.name}({', '.join(f'{n} => {t}' for n, t in f.type_of.items())})" for f in functions
    )
    return ApiError(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: {shown}",
        None,
        "Try renaming the parameters or the function itself in the database so function overloading can be "
        "resolved",
    )
