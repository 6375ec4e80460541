"""How connections and channels begin, go on and end, and what a lost database does to them."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from priorityd.daemon.sandbox.postgres import embedded_postgres
from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings
from priorityd.daemon.sandbox.seed import prepare_database
from priorityd.daemon.sandbox.server import PortError, reserve_port
from tests.sandbox.client import add_membership, binding, connect, is_live, notes, until_published
from tests.support.faults import misbehave
from tests.support.patience import PATIENCE_SECONDS
from tests.support.plans import ATTENTIVE
from tests.support.servers import start_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from priorityd.daemon.sandbox.postgres import EmbeddedPostgres
    from tests.sandbox.client import Client, Frame
    from tests.support.database import Database
    from tests.support.servers import Servers

_PUBLISHED = "select tablename from pg_publication_tables where pubname = 'supabase_realtime'"
_SLOTS = "select slot_name, active_pid from pg_replication_slots where database = current_database()"


async def test_a_frame_that_is_no_message_is_ignored(client: Client) -> None:
    for text in ("not json", "[]", "{}"):
        await client.websocket.send(text)
    assert is_live((await client.join_live(binding()))[-1])


async def test_only_who_asks_for_presence_is_told_of_it(client: Client) -> None:
    for number, (presence, expected) in enumerate(
        (
            ({"key": "", "enabled": False}, ["phx_reply"]),
            ({"key": ""}, ["phx_reply"]),
            ({"key": "", "enabled": True}, ["phx_reply", "presence_state"]),
        )
    ):
        config = {"presence": presence, "postgres_changes": []}
        await client.send(f"realtime:{number}", "phx_join", {"config": config}, str(number))
        await client.until(lambda frame: frame["event"] == "phx_reply")
        assert ["phx_reply", *(frame["event"] for frame in await client.sync())] == expected


async def test_changes_flow_only_after_the_system_ok_that_follows_the_reply(
    client: Client, database: Database
) -> None:
    session = database.connect()
    assert session.execute(_SLOTS).fetchall() == []
    frames = await client.join_live(binding())
    assert [frame["event"] for frame in frames] == ["phx_reply", "system"]
    assert len(session.execute(_SLOTS).fetchall()) == 1
    add_membership(session, "after")
    assert (await client.change())["record"]["notes"] == "after"


async def test_a_left_channel_gets_nothing_more_and_the_socket_stays_open(
    client: Client, database: Database
) -> None:
    await client.join_live(binding())
    ref = await client.send("realtime:wr", "phx_leave", {}, "1")
    left = [await client.receive(), await client.receive()]
    assert [(frame["event"], frame["ref"]) for frame in left] == [("phx_reply", ref), ("phx_close", "1")]
    session = database.connect()
    add_membership(session, "unheard")
    await client.join_live(binding(), topic="realtime:again")
    add_membership(session, "heard")
    frames = await client.until(lambda frame: "heard" in notes([frame]))
    assert {frame["topic"] for frame in frames} == {"realtime:again"}


async def test_a_changed_publication_is_told_to_everybody_who_is_subscribed(database: Database) -> None:
    session = database.connect()
    async with start_servers(database.url, settings=ATTENTIVE) as sandbox, connect(sandbox) as client:
        await client.join_live(binding())
        session.execute("alter publication supabase_realtime add table workspaces")
        assert is_live(await client.receive())
        session.execute("alter publication supabase_realtime drop table workspace_repositories")
        frames = await client.until(lambda frame: frame["event"] == "system")
        payload = frames[-1]["payload"]
        assert (payload["status"], payload["extension"]) == ("error", "postgres_changes")
        assert "table: workspace_repositories" in payload["message"]
        # The channel has no subscription any more, so nobody subscribes for it again.
        await client.join_live(binding("workspaces"), topic="realtime:other")
        session.execute("alter publication supabase_realtime add table workspace_repositories")
        frames = await client.until(is_live)
        add_membership(session, "unheard")
        session.execute("insert into workspaces default values")
        frames += [await client.receive(), await client.receive()]
        assert {frame["topic"] for frame in frames} == {"realtime:other"}


async def test_a_publication_that_was_empty_is_heard_of_late_though_subscriptions_start(
    database: Database,
) -> None:
    session = database.connect()
    for (table,) in session.execute(_PUBLISHED).fetchall():
        session.execute(f"alter publication supabase_realtime drop table {table}".encode())
    async with start_servers(database.url) as sandbox, connect(sandbox) as client:
        await client.join(binding())
        await client.until(lambda frame: frame["event"] == "system")
        session.execute("alter publication supabase_realtime add table workspace_repositories")
        await client.join_live(binding())
        assert session.execute(_SLOTS).fetchall() == []


async def test_over_the_quota_changes_are_dropped_and_nobody_is_told(database: Database) -> None:
    session = database.connect()
    few = RealtimeSettings(events_per_second=1.0)
    async with start_servers(database.url, settings=few) as sandbox, connect(sandbox) as client:
        await client.join_live(binding())
        for number in range(60):
            add_membership(session, f"{number}")
        frames = await client.until(lambda frame: "59" in notes([frame]))
        while frames:
            add_membership(session, "more")
            await until_published(session, client)
            # None at last: neither the change nor a word about it.
            frames = await client.sync()


async def test_the_server_can_be_told_to_close_sockets(sandbox: Servers) -> None:
    for code in (1000, 1001, 1011, 1012):
        async with connect(sandbox) as client:
            await client.join_live(binding())
            misbehave(sandbox, f"realtime/close?code={code}")
            assert await client.closed() == code


async def test_the_server_can_be_told_to_drop_sockets_rudely(client: Client, sandbox: Servers) -> None:
    await client.join_live(binding())
    misbehave(sandbox, "realtime/abort")
    await client.closed()
    assert client.websocket.protocol.close_rcvd is None


async def test_the_server_can_be_told_to_be_silent(
    client: Client, sandbox: Servers, database: Database
) -> None:
    session = database.connect()
    await client.join_live(binding())
    misbehave(sandbox, "realtime/silence?seconds=60")
    add_membership(session, "dropped")
    await until_published(session, client)
    misbehave(sandbox, "realtime/silence?seconds=0")
    add_membership(session, "heard")
    assert (await client.change())["record"]["notes"] == "heard"


async def test_the_server_can_be_told_to_leave_joins_without_an_answer(
    client: Client, sandbox: Servers
) -> None:
    misbehave(sandbox, "realtime/refuse?seconds=60")
    await client.join(binding())
    assert await client.sync() == []
    misbehave(sandbox, "realtime/refuse?seconds=0")
    assert is_live((await client.join_live(binding()))[-1])


async def test_a_stopped_server_closes_with_1012_and_leaves_no_slot(database: Database) -> None:
    async with AsyncExitStack() as clients:
        async with start_servers(database.url) as sandbox:
            client = await clients.enter_async_context(connect(sandbox))
            await client.join_live(binding())
        assert await client.closed() == 1012
    assert database.connect().execute(_SLOTS).fetchall() == []


async def test_a_client_that_does_not_read_holds_up_nobody(
    client: Client, sandbox: Servers, database: Database
) -> None:
    session = database.connect()
    session.execute("alter publication supabase_realtime add table workspaces")
    async with connect(sandbox) as lazy:
        await lazy.join_live(binding("workspaces"))
        await client.join_live(binding("workspaces"))
        lazy.websocket.transport.pause_reading()
        session.execute(
            "insert into workspaces (name) select repeat('x', 100000) from generate_series(1, 100)"
        )
        for _ in range(100):
            await client.change()
        assert await client.sync() == []
        lazy.websocket.transport.resume_reading()
        for _ in range(100):
            await lazy.change()


async def test_a_lost_replication_backend_loses_changes_and_nobody_is_told(
    client: Client, database: Database
) -> None:
    session = database.connect()
    await client.join_live(binding())
    session.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
    add_membership(session, "lost")
    heard: list[str] = []
    frames: list[Frame] = []
    number = 0
    while not heard:
        number += 1
        add_membership(session, f"later {number}")
        frames += await client.sync()
        heard = notes(frames)
    assert "lost" not in heard
    assert {frame["event"] for frame in frames} == {"postgres_changes"}


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, to stop and start."""
    with embedded_postgres() as postgres:
        prepare_database(postgres.url(), with_demo_data=False, step=lambda _: None)
        yield postgres


async def test_without_a_database_joins_are_refused_and_old_channels_recover_by_themselves(
    postgres: EmbeddedPostgres,
) -> None:
    async with start_servers(postgres.url()) as sandbox, connect(sandbox) as old, connect(sandbox) as new:
        await old.join_live(binding())
        await asyncio.to_thread(postgres.stop)
        started = time.monotonic()
        ref = await new.join(binding())
        reply = await new.receive()
        assert (reply["ref"], reply["payload"]["status"]) == (ref, "error")
        assert reply["payload"]["response"]["reason"].startswith("UnableToConnectToProject")
        assert time.monotonic() - started > 4.5
        async with httpx.AsyncClient(base_url=sandbox.url, timeout=PATIENCE_SECONDS) as http:
            headers = {"apikey": sandbox.anon_key, "Authorization": f"Bearer {sandbox.service_role_key}"}
            answer = await http.post("/rest/v1/rpc/workspace_priority_snapshot", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "PGRST002")
            await asyncio.to_thread(postgres.start)
            await sandbox.rest_ready()
            answer = await http.post("/rest/v1/rpc/workspace_priority_snapshot", headers=headers)
            assert answer.status_code == 200
        with psycopg.connect(postgres.url(), autocommit=True) as session:
            frames: list[Frame] = []
            while not notes(frames):
                add_membership(session, "x")
                frames += await old.sync()
        assert {frame["event"] for frame in frames} == {"postgres_changes"}


def test_a_busy_port_is_named() -> None:
    with reserve_port(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} "):
            reserve_port(port)


async def test_a_channel_that_a_bad_token_ended_says_nothing_more(client: Client, database: Database) -> None:
    await client.join(binding("workspaces"))
    await client.until(lambda frame: frame["event"] == "system")
    await client.send("realtime:wr", "access_token", {"access_token": "bad"}, "1")
    await client.until(lambda frame: frame["event"] == "phx_close")
    database.connect().execute("alter publication supabase_realtime add table workspaces")
    await client.join_live(binding("workspaces"), topic="realtime:other")
    database.connect().execute("insert into workspaces default values")
    await client.change()
    assert await client.sync() == []
    reply = await client.send("realtime:wr", "phx_leave", {}, "1")
    assert (await client.receive())["ref"] == reply


async def test_a_client_that_falls_too_far_behind_is_cut_off(
    client: Client, sandbox: Servers, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("priorityd.daemon.sandbox.realtime.socket._MOST_QUEUED_CHARACTERS", 2_000_000)
    session = database.connect()
    session.execute("alter publication supabase_realtime add table workspaces")
    async with connect(sandbox) as lazy:
        await lazy.join_live(binding("workspaces"))
        await client.join_live(binding("workspaces"))
        lazy.websocket.transport.pause_reading()
        for _ in range(20):
            session.execute(
                "insert into workspaces (name) select repeat('x', 100000) from generate_series(1, 10)"
            )
            for _ in range(10):
                await client.change()
        lazy.websocket.transport.resume_reading()
        heard = 0
        with suppress(ConnectionClosed):
            while True:
                await lazy.receive()
                heard += 1
        assert heard < 200
