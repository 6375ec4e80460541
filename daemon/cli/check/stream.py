"""The part of `priorityd check` about the change stream: a row is written, and must come back through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final
from uuid import uuid4

import anyio

from priorityd.core.errors import ExitCode, PriorityError
from priorityd.core.stream.hints import HEARTBEATS, MalformedChangeError, read_change
from priorityd.core.stream.listener_state import JOIN_TIMEOUT_SECONDS, Failed, Input, Subscribed
from priorityd.daemon.cli.check.guard import from_call
from priorityd.daemon.cli.finding import Finding, psql
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.rows import DatabaseCheck
from priorityd.daemon.database.store import Store
from priorityd.daemon.settings import Settings
from priorityd.daemon.stream.connection import ChangeStream

_STEP: Final = "change stream"
_BEAT_SECONDS: Final = 15.0
_SLOTS: Final = psql("select slot_name, active, wal_status from pg_replication_slots")
_PRIVATE_ONLY: Final = "PrivateOnly"
"""How this refusal begins (supabase/realtime 2.129.8, `lib/realtime_web/channels/realtime_channel.ex`)."""
_SWITCHED_OFF: Final = "Realtime was disabled"
"""How the refusal of a handshake begins (`lib/realtime_web/channels/user_socket.ex`)."""
_BY_SWEEPS: Final = "Until then the daemon relies on sweeps alone."


async def stream_findings(
    settings: Settings, store: Store, database: DatabaseCheck
) -> AsyncIterator[Finding]:
    """Test whether the subscription goes live and a row comes through."""
    yield explained(await _Trial(settings, store).run(), database)


class _Trial:
    """One connection, opened to see whether it delivers."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._daemon_id = uuid4()
        self._subscribed, self._seen = anyio.Event(), anyio.Event()
        self._failures: list[Failed] = []
        api_key = ApiKey(settings.supabase_key.get_secret_value(), gateway_key=settings.plain_gateway_key)
        self._stream = ChangeStream(
            settings.supabase_url,
            api_key,
            self._daemon_id,
            on_change=self._on_change,
            on_input=self._on_input,
        )

    async def run(self) -> Finding:
        try:
            return await self._run()
        finally:
            with anyio.CancelScope(shield=True):
                await self._stream.close()

    async def _run(self) -> Finding:
        with anyio.move_on_after(JOIN_TIMEOUT_SECONDS + 10):
            await self._stream.open()
            await self._subscribed.wait()
        if self._failures or not self._subscribed.is_set():
            failure = self._failures[0] if self._failures else Failed("join_timeout", "no confirmation came")
            return _not_live(failure)
        try:
            await self._store.beat(self._daemon_id)
        except PriorityError as error:
            return from_call(_STEP, error)
        with anyio.move_on_after(_BEAT_SECONDS):
            await self._seen.wait()
        if self._seen.is_set():
            return Finding(_STEP, "ok", "the subscription is live and a row came through")
        return _failed(
            "the channel is joined, but rows do not arrive",
            "If the publication was changed in the last minute, check again in a minute. Do /rest/v1 and "
            "/realtime/v1 lead to the same project? If so, restart Realtime in the project's settings, and "
            "make sure that its replication slot is not blocked.",
            _SLOTS,
        )

    def _on_input(self, event: Input) -> None:
        if isinstance(event, Failed):
            self._failures.append(event)
        if isinstance(event, Failed | Subscribed):
            self._subscribed.set()

    def _on_change(self, data: object) -> None:
        try:
            hint = read_change(data if isinstance(data, dict) else {})
        except MalformedChangeError:
            return
        if hint.table == HEARTBEATS and hint.beat_at is not None:
            self._seen.set()


def _failed(text: str, remedy: str, command: str) -> Finding:
    return Finding(_STEP, "failed", text, f"{remedy} {_BY_SWEEPS}", command, ExitCode.FAILED)


def _not_live(failure: Failed) -> Finding:
    text = f"the subscription does not go live: {failure.detail}"
    if _PRIVATE_ONLY in failure.detail:
        return _failed(
            text,
            'Switch on "Allow public access" in the project\'s Realtime settings: row changes come through '
            "public channels only. Row level security still decides who receives which row.",
            "priorityd check",
        )
    if failure.reason == "refused" and _SWITCHED_OFF not in failure.detail:
        return _failed(
            text,
            "Realtime refuses the key that /rest/v1 accepts: do both lead to the same project?",
            "priorityd check",
        )
    if failure.reason == "connect_failed":
        return _failed(
            text,
            "Configure the proxy or gateway in between to forward WebSockets to /realtime/v1/websocket.",
            "priorityd check",
        )
    return _failed(text, "Is Realtime enabled for the project?", _SLOTS)


def explained(finding: Finding, database: DatabaseCheck) -> Finding:
    """The finding, with the reason for its failure as far as the database knows it."""
    if finding.outcome != "failed" or _PRIVATE_ONLY in finding.text:
        return finding
    publication = database.publication
    if database.refuses_wal2json:
        return _failed(
            f"{finding.text}; PostgreSQL refuses wal2json, which Realtime needs",
            "Add wal2json to output_plugin_libraries, the list of output plugins that PostgreSQL may load.",
            psql("show output_plugin_libraries"),
        )
    if not publication.exists or publication.missing or len(publication.tables) < len(publication.flaws):
        return _failed(finding.text, "Fix the publication first, as described above.", "priorityd check")
    return finding
