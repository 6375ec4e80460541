"""The listener on a real stream: its canary, its reconnects, and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psutil
import pytest
from websockets.asyncio.server import ServerConnection, serve

from priorityd.core.stream.listener_state import Failed, Input, Opened
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.stream.connection import ChangeStream
from tests.support.application import Application
from tests.support.daemon_process import eventually
from tests.support.database import Database
from tests.support.faults import misbehave
from tests.support.listening import Heard, listening
from tests.support.servers import Servers


async def test_passes_on_what_changes_say(sandbox: Servers, database: Database) -> None:
    app, heard = Application(database.connect()), Heard()
    workspace, repository = app.workspace(), app.repository()
    async with listening(sandbox, heard, Metrics()):
        app.add(workspace, repository)
        app.remove(workspace, repository)
        app.add(workspace, repository)
        await eventually(lambda: len(heard.hints) >= 2)
    assert heard.hints[-1].repository_ids == (repository,)
    assert all(hint.needs_sweep or hint.repository_ids == (repository,) for hint in heard.hints)
    assert set(heard.gaps) == {"reconnect"}


async def test_a_heartbeat_that_does_not_come_back_makes_it_reconnect(sandbox: Servers) -> None:
    heard, metrics = Heard(), Metrics()
    async with listening(sandbox, heard, metrics, grace_seconds=1.5) as listener:
        await eventually(lambda: value(metrics, "stream_last_seen_timestamp_seconds") > 0)
        assert 0 <= value(metrics, "stream_lag_seconds") < 5
        misbehave(sandbox, "realtime/silence?seconds=60")
        await eventually(lambda: value(metrics, "reconnects_total", reason="stale") == 1)
        misbehave(sandbox, "realtime/silence?seconds=0")
        await eventually(lambda: listener.state.name == "live")
    assert heard.gaps[:2] == ["reconnect", "reconnect"], "each time that it becomes live it asks for a sweep"


async def test_the_lag_is_by_the_databases_clock(sandbox: Servers) -> None:
    metrics, clock = Metrics(), DatabaseClock()
    clock.read(datetime.now(UTC) + timedelta(hours=1))
    async with listening(sandbox, Heard(), metrics, clock=clock) as listener:
        await eventually(lambda: listener.lag_seconds is not None)
        assert listener.lag_seconds == pytest.approx(3600, abs=60)
        assert value(metrics, "stream_lag_seconds") == pytest.approx(3600, abs=60)


async def test_a_heartbeat_that_can_not_be_written_says_nothing_about_the_stream(
    sandbox: Servers,
) -> None:
    heard, metrics = Heard(), Metrics()
    misbehave(sandbox, "rest/fail?status=404&sqlstate=42883&seconds=60&message=no")
    async with listening(sandbox, heard, metrics) as listener:
        await eventually(lambda: len(heard.errors) >= 4)
        assert listener.state.name == "live"
    assert value(metrics, "reconnects_total", reason="stale") == 0
    assert value(metrics, "stream_last_seen_timestamp_seconds") == 0


async def test_a_frame_that_the_client_drops_asks_for_a_sweep(sandbox: Servers, database: Database) -> None:
    app, heard, metrics = Application(database.connect()), Heard(), Metrics()
    workspace, repository = app.workspace(), app.repository()
    async with listening(sandbox, heard, metrics):
        # What comes for this role from now on is "Error 401: Unauthorized", in an undocumented shape.
        app.connection.execute("revoke select on workspace_repositories from service_role")
        app.add(workspace, repository)
        await eventually(lambda: "event" in heard.gaps)
    assert value(metrics, "malformed_events_total") == 1


async def test_renewals_of_the_connection_miss_no_change(sandbox: Servers, database: Database) -> None:
    app, heard, metrics = Application(database.connect()), Heard(), Metrics()
    workspace, repositories = app.workspace(), app.repositories(300)
    async with listening(sandbox, heard, metrics, renew_after_seconds=0.5, linger_seconds=1.0) as listener:
        for repository in repositories:
            app.add(workspace, repository)
            await asyncio.sleep(0.01)
        # Ready for what comes after the last of them, too.
        renewals = value(metrics, "reconnects_total", reason="renewal")
        await eventually(lambda: value(metrics, "reconnects_total", reason="renewal") > renewals)
        last = app.repository()
        app.add(workspace, last)
        await eventually(lambda: any(last in hint.repository_ids for hint in heard.hints))
        assert listener.state.name == "live"
    assert renewals >= 4
    assert set(repositories) <= {each for hint in heard.hints for each in hint.repository_ids}
    assert heard.gaps == ["reconnect"] * 2, "there was no gap but the one before the first row of the first"
    assert value(metrics, "reconnects_total") == value(metrics, "reconnects_total", reason="renewal")


async def test_a_renewed_connection_is_closed_after_a_while(sandbox: Servers) -> None:
    heard, metrics, process = Heard(), Metrics(), psutil.Process()
    async with listening(sandbox, heard, metrics, renew_after_seconds=0.5, linger_seconds=0.1):
        await eventually(lambda: value(metrics, "reconnects_total", reason="renewal") == 2)
        tasks, files = len(asyncio.all_tasks()), process.num_fds()
        await eventually(lambda: value(metrics, "reconnects_total", reason="renewal") == 8)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 2)
        await eventually(lambda: process.num_fds() <= files + 2)


async def test_a_renewed_connection_that_breaks_is_replaced(sandbox: Servers) -> None:
    heard, metrics = Heard(), Metrics()
    async with listening(sandbox, heard, metrics, renew_after_seconds=1.0) as listener:
        await eventually(lambda: value(metrics, "reconnects_total", reason="renewal") == 1)
        await eventually(lambda: listener.state.confirmed)
        before = len(heard.gaps)
        misbehave(sandbox, "realtime/close?code=1012")
        await eventually(lambda: value(metrics, "reconnects_total", reason="closed") == 1)
        await eventually(lambda: listener.state.confirmed)
    assert heard.gaps[before:] == ["reconnect"] * 3, "when lost, when live again, when confirmed"


async def test_what_is_lost_between_the_system_ok_and_the_slot_is_asked_for(
    sandbox: Servers, database: Database
) -> None:
    app, heard = Application(database.connect()), Heard()
    workspace, repository, later = app.workspace(), app.repository(), app.repository()
    misbehave(sandbox, "realtime/slotless?seconds=60")
    # So patient that it does not take the connection for stale before there is a slot.
    async with listening(sandbox, heard, Metrics(), grace_seconds=60) as listener:
        assert heard.gaps == ["reconnect"]
        app.add(workspace, repository)
        misbehave(sandbox, "realtime/slotless?seconds=0")
        await eventually(lambda: heard.gaps == ["reconnect"] * 2)
        assert listener.state.confirmed
        app.add(workspace, later)
        await eventually(lambda: any(later in hint.repository_ids for hint in heard.hints))
    assert not any(repository in hint.repository_ids for hint in heard.hints)


async def test_the_key_is_in_no_message_about_the_connection() -> None:
    told: list[Input] = []
    stream = ChangeStream(
        "http:///no-host", ApiKey("sb_secret_abc"), uuid4(), on_change=lambda _: None, on_input=told.append
    )
    await stream.open()
    await stream.close()
    (failure,) = told
    assert isinstance(failure, Failed)
    assert "apikey=[redacted]" in failure.detail, (
        "the client's error quotes the URL, and the key is part of it"
    )
    assert "sb_secret_abc" not in failure.detail


async def test_many_reconnects_leave_as_much_behind_as_one(sandbox: Servers) -> None:
    heard, process = Heard(), psutil.Process()
    async with listening(sandbox, heard, Metrics(), backoff_max_seconds=0.05) as listener:

        async def reconnect() -> None:
            gaps = len(heard.gaps)
            misbehave(sandbox, "realtime/close?code=1012")
            await eventually(lambda: len(heard.gaps) > gaps and listener.state.name == "live")

        await reconnect()
        tasks, files = len(asyncio.all_tasks()), process.num_fds()
        for _ in range(6):
            await reconnect()
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 2)
        await eventually(lambda: process.num_fds() <= files + 2)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The sum over all series with these labels."""
    found = [
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"workspace_priority_{name}" and labels.items() <= sample.labels.items()
    ]
    assert found
    return sum(found)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"message":"Invalid authentication credentials"}', "401: Invalid authentication credentials"),
        (b'{"error":"Token has expired"}', "401: Token has expired"),
        (b"<html>Unauthorized</html>", "401"),
        (b'{"error": {"code": 7}}', "401"),
        (b"[" * 100_000, "401"),
        (b"\xff", "401"),
        (b"", "401"),
    ],
)
async def test_a_refused_handshake_is_told_in_the_servers_words_if_it_has_any(body: bytes, said: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    told: list[Input] = []
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        stream = ChangeStream(
            url, ApiKey("sb_secret_abc"), uuid4(), on_change=lambda _: None, on_input=told.append
        )
        await stream.open()
        await stream.close()
    assert told == [Failed("refused", f"the WebSocket handshake was answered with {said}")]


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4000, 4999]
)
async def test_each_close_of_the_server_is_told_with_its_code_and_reason(code: int) -> None:
    async def close(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.close(code, "because of this")

    assert await told_by(close) == [
        Opened(),
        Failed("closed", f"the server closed the connection ({code}: because of this)"),
    ]


async def test_a_frame_that_is_too_large_ends_the_connection_and_is_told() -> None:
    async def send_much(socket: ServerConnection) -> None:
        await socket.send("x" * 2_000_000)
        await socket.wait_closed()

    opened, failed = await told_by(send_much)
    assert opened == Opened()
    assert isinstance(failed, Failed)
    assert failed.detail.startswith("this side gave up the connection (1009")


async def test_a_connection_that_breaks_off_is_told() -> None:
    async def cut(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.abort()

    assert (await told_by(cut))[1:] == [Failed("closed", "the connection broke off, without a close frame")]


async def told_by(serve_one: Callable[[ServerConnection], Awaitable[None]]) -> list[Input]:
    """What a connection to such a server reports."""
    told: list[Input] = []
    async with serve(serve_one, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        stream = ChangeStream(
            f"http://127.0.0.1:{port}",
            ApiKey("sb_secret_abc"),
            uuid4(),
            on_change=lambda _: None,
            on_input=told.append,
        )
        await stream.open()
        await stream.close()
    return told
