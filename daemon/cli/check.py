"""`priorityd check`: tests the set-up one step at a time; each result says what to do about it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Final
from uuid import uuid4

import anyio
import click
import httpx

from priorityd.core.database.schema import APPLY_MIGRATIONS, missing_schema
from priorityd.core.errors import (
    ConfigurationError,
    ExitCode,
    KeyRefusedError,
    MissingGrantError,
    PriorityError,
    TransientError,
)
from priorityd.core.stream.hints import HEARTBEATS, MalformedChangeError, read_change
from priorityd.core.stream.listener_state import JOIN_TIMEOUT_SECONDS, Failed, Input, Subscribed
from priorityd.daemon.cli.check_database import database_findings
from priorityd.daemon.cli.check_inngest import inngest_findings
from priorityd.daemon.cli.finding import Finding, from_error, psql
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.rows import DatabaseCheck
from priorityd.daemon.database.store import Store
from priorityd.daemon.settings import Settings
from priorityd.daemon.status.http import listen
from priorityd.daemon.stream.connection import ChangeStream

_STREAM: Final = "change stream"
_BEAT_SECONDS: Final = 15.0
_SLOTS: Final = "select slot_name, active, wal_status from pg_replication_slots"


async def check_command(settings: Settings, store: Store, *, as_json: bool) -> ExitCode:
    """Run every step that makes sense after the ones before it."""
    findings = []
    async for finding in _findings(settings, store):
        findings.append(finding)
        if not as_json:
            _show(finding)
    failed = [finding for finding in findings if finding.outcome == "failed"]
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}))
    return failed[0].exit_code if failed else ExitCode.DONE


def _show(finding: Finding) -> None:
    mark = {"ok": "ok", "skipped": "skipped", "warning": "warning", "failed": "FAILED"}[finding.outcome]
    click.echo(f"{mark:<7}  {finding.step}: {finding.text}")
    if finding.remedy:
        click.echo(f"         → {finding.remedy}")
    if finding.command:
        click.echo(f"         $ {finding.command}")


async def _findings(settings: Settings, store: Store) -> AsyncIterator[Finding]:
    yield _port(settings, await _own_daemon(settings))
    async for finding in _supabase(settings, store):
        yield finding
    async for finding in inngest_findings(settings):
        yield finding


async def _supabase(settings: Settings, store: Store) -> AsyncIterator[Finding]:
    reachable = await _reachable(settings)
    yield reachable
    if reachable.outcome == "failed":
        return
    database, finding = await _database(store)
    yield finding
    if database is None:
        return
    if not database.hidden:
        yield await _privileges(store)
    for finding in database_findings(database):
        yield finding
    yield await _subscription(settings, store, refuses_wal2json=database.refuses_wal2json)


async def _reachable(settings: Settings) -> Finding:
    step = "Supabase URL"
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            await client.get(f"{settings.supabase_url}/rest/v1/")
    except httpx.HTTPError as error:
        return Finding(
            step,
            "failed",
            f"{settings.supabase_url} can't be reached: {error or type(error).__name__}",
            "Compare SUPABASE_URL with the project's API settings; a paused project does not answer.",
            f"curl -sS -o /dev/null -w '%{{http_code}}\\n' {settings.supabase_url}/rest/v1/",
            ExitCode.UNAVAILABLE,
        )
    return Finding(step, "ok", f"{settings.supabase_url} answers")


async def _database(store: Store) -> tuple[DatabaseCheck | None, Finding]:
    step = "key and functions"
    try:
        return await store.check(), Finding(step, "ok", "the key is accepted and the functions are there")
    except KeyRefusedError as error:
        remedy = "Copy the service_role key (or a secret key) again from the project's API settings."
        return None, from_error(step, error, remedy, "export SUPABASE_SERVICE_ROLE_KEY=…")
    except TransientError as error:
        if error.reason == "schema_cache":
            return None, from_error(step, missing_schema(), "Apply the migrations.", APPLY_MIGRATIONS)
        return None, _for_now(step, error)
    except MissingGrantError as error:
        return None, _ungranted(step, error)
    except PriorityError as error:
        remedy = "What the database said tells what is wrong; this shows every detail."
        return None, from_error(step, error, remedy, psql("select check_workspace_priorities()"))


async def _privileges(store: Store) -> Finding:
    step = "privileges"
    try:
        await store.demand_rights()
    except MissingGrantError as error:
        return _ungranted(step, error)
    except TransientError as error:
        return _for_now(step, error)
    except PriorityError as error:
        remedy = "What the database said tells what is wrong; this shows every detail."
        return from_error(step, error, remedy, psql("select sync_workspace_priorities('{}', 'manual', true)"))
    return Finding(step, "ok", "the key's role may read and write what it has to")


def _ungranted(step: str, error: MissingGrantError) -> Finding:
    return from_error(step, error, "Give the role what it lacks.", psql(error.statements))


def _for_now(step: str, error: PriorityError) -> Finding:
    return from_error(step, error, "Try again in a minute.", "priorityd check")


async def _subscription(settings: Settings, store: Store, *, refuses_wal2json: bool) -> Finding:
    daemon_id = uuid4()
    subscribed, seen = anyio.Event(), anyio.Event()
    failures: list[Failed] = []

    def on_input(event: Input) -> None:
        if isinstance(event, Failed):
            failures.append(event)
        if isinstance(event, Failed | Subscribed):
            subscribed.set()

    def on_change(data: object) -> None:
        try:
            hint = read_change(data if isinstance(data, dict) else {})
        except MalformedChangeError:
            return
        if hint.table == HEARTBEATS and hint.beat_at is not None:
            seen.set()

    api_key = ApiKey(settings.supabase_key.get_secret_value(), gateway_key=settings.plain_gateway_key)
    stream = ChangeStream(settings.supabase_url, api_key, daemon_id, on_change=on_change, on_input=on_input)
    try:
        with anyio.move_on_after(JOIN_TIMEOUT_SECONDS + 10):
            await stream.open()
            await subscribed.wait()
        if failures or not subscribed.is_set():
            detail = failures[0].detail if failures else "no confirmation came"
            remedy = "Is Realtime enabled for the project? The daemon works by sweeps alone meanwhile."
            text = f"the subscription does not go live: {detail}"
            return not_streaming(text, remedy, refuses_wal2json=refuses_wal2json)
        try:
            await store.beat(daemon_id)
        except PriorityError as error:
            return _for_now(_STREAM, error)
        with anyio.move_on_after(_BEAT_SECONDS):
            await seen.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await stream.close()
    if not seen.is_set():
        remedy = "Restart Realtime in the project's settings; check that its replication slot is not blocked."
        text = "it is joined but rows do not come"
        return not_streaming(text, remedy, refuses_wal2json=refuses_wal2json)
    return Finding(_STREAM, "ok", "the subscription is live and a row came through")


def not_streaming(text: str, remedy: str, *, refuses_wal2json: bool) -> Finding:
    """Changes do not come; where PostgreSQL refuses Realtime's decoder, that is why."""
    command = psql(_SLOTS)
    if refuses_wal2json:
        text = f"{text}; PostgreSQL refuses wal2json, by which Realtime reads"
        remedy = "Have wal2json added to output_plugin_libraries, which lists what PostgreSQL may load."
        command = psql("show output_plugin_libraries")
    return Finding(_STREAM, "failed", text, remedy, command, ExitCode.FAILED)


async def _own_daemon(settings: Settings) -> bool:
    try:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            url = f"http://{settings.http_host}:{settings.http_port}/status"
            return "listener" in (await client.get(url)).json()
    except (httpx.HTTPError, ValueError, TypeError):
        return False


def _port(settings: Settings, own_daemon: bool) -> Finding:
    step = "metrics port"
    address = f"{settings.http_host}:{settings.http_port}"
    if own_daemon:
        return Finding(step, "ok", f"{address} is served by a running priorityd")
    try:
        listen(settings.http_host, settings.http_port).close()
    except ConfigurationError as error:
        remedy = "Set PRIORITYD_HTTP_PORT to a free port; with 0 any free one is taken, and the log names it."
        return from_error(step, error, remedy, "export PRIORITYD_HTTP_PORT=0")
    return Finding(step, "ok", f"{address} is free")
