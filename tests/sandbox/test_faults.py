"""Requested failures do what their table says, and end on request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.sandbox.client import add_membership, binding, connect, is_live, notes, until_published
from tests.support import faults
from tests.support.faults import TIMED_FAULTS, misbehave
from tests.support.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.sandbox.client import Client, Frame
    from tests.support.database import Database
    from tests.support.servers import Servers

RPC = "/rest/v1/rpc/workspace_priority_snapshot"


async def heard(client: Client, wanted: str) -> list[str]:
    """The notes of the memberships that come, up to the wanted one."""
    frames: list[Frame] = await client.until(lambda frame: wanted in notes([frame]))
    return notes(frames)


async def test_changes_are_lost_at_random(client: Client, sandbox: Servers, database: Database) -> None:
    session = database.connect()
    await client.join_live(binding())
    misbehave(sandbox, "realtime/lose?share=0.5&seconds=60")
    for number in range(100):
        add_membership(session, f"{number}")
    came: list[str] = []
    while "last" not in came:
        add_membership(session, "last")
        came += notes(await client.sync())
    assert 10 < len(set(came)) < 90


async def test_changes_come_twice(client: Client, sandbox: Servers, database: Database) -> None:
    session = database.connect()
    await client.join_live(binding())
    misbehave(sandbox, "realtime/repeat?seconds=60")
    add_membership(session, "a")
    add_membership(session, "b")
    assert await heard(client, "b") + await heard(client, "b") == ["a", "a", "b", "b"]


async def test_changes_come_late_in_order(client: Client, sandbox: Servers, database: Database) -> None:
    session = database.connect()
    await client.join_live(binding())
    misbehave(sandbox, "realtime/delay?by=0.5&seconds=60")
    started = time.monotonic()
    for note in "abc":
        add_membership(session, note)
    assert await heard(client, "c") == ["a", "b", "c"]
    assert time.monotonic() - started >= 0.5


async def test_changes_come_in_any_order(client: Client, sandbox: Servers, database: Database) -> None:
    session = database.connect()
    await client.join_live(binding())
    misbehave(sandbox, "realtime/shuffle?by=0.5&seconds=60")
    sent = [f"{number}" for number in range(40)]
    for note in sent:
        add_membership(session, note)
    came: list[str] = []
    while len(came) < len(sent):
        came += notes([await client.receive()])
    assert sorted(came) == sorted(sent)
    assert came != sent


async def test_too_many_messages_end_the_channel_and_not_the_socket(client: Client, sandbox: Servers) -> None:
    await client.join_live(binding())
    misbehave(sandbox, "realtime/overrun")
    told, closed = await client.receive(), await client.receive()
    assert (told["event"], told["payload"]["status"]) == ("system", "error")
    assert told["payload"]["message"] == "Too many messages per second"
    assert closed["event"] == "phx_close"
    assert is_live((await client.join_live(binding()))[-1])


async def test_a_lost_slot_is_announced_by_another_ok(
    client: Client, sandbox: Servers, database: Database
) -> None:
    session = database.connect()
    await client.join_live(binding())
    misbehave(sandbox, "realtime/resubscribe?seconds=5")
    add_membership(session, "before the reader has seen that it has no slot any more, perhaps")
    slots = "select count(*) from pg_replication_slots where database = current_database()"
    while session.execute(slots).fetchone() != (0,):
        await client.sync()
    add_membership(session, "lost")
    frames = await client.until(is_live)
    assert "lost" not in notes(frames)
    add_membership(session, "heard")
    assert await heard(client, "heard") == ["heard"]


async def test_too_many_joins_end_the_socket(client: Client, sandbox: Servers) -> None:
    misbehave(sandbox, "realtime/limit?seconds=60")
    await client.join(binding())
    assert await client.closed() == 1000
    misbehave(sandbox, "realtime/limit?seconds=0")
    async with connect(sandbox) as another:
        assert is_live((await another.join_live(binding()))[-1])


async def test_a_quota_can_be_exceeded_at_will(client: Client, sandbox: Servers, database: Database) -> None:
    session = database.connect()
    await client.join_live(binding())
    misbehave(sandbox, "realtime/quota?events=0&seconds=60")
    came = ["first"]
    while came:
        add_membership(session, "heard, or not")
        await until_published(session, client)
        came = notes(await client.sync())
    misbehave(sandbox, "realtime/quota?seconds=0")
    while not came:
        add_membership(session, "heard again")
        came = notes(await client.sync())


async def test_a_project_of_private_channels_refuses_public_ones(client: Client, sandbox: Servers) -> None:
    misbehave(sandbox, "realtime/private?seconds=60")
    await client.join(binding())
    answer = (await client.receive())["payload"]
    reason = "PrivateOnly: This project only allows private channels"
    assert (answer["status"], answer["response"]) == ("error", {"reason": reason})
    misbehave(sandbox, "realtime/private?seconds=0")
    assert is_live((await client.join_live(binding()))[-1])


async def test_a_subscription_is_refused_by_a_system_error(client: Client, sandbox: Servers) -> None:
    misbehave(sandbox, "realtime/deny?seconds=60")
    await client.join(binding())
    frames = await client.until(lambda frame: frame["event"] == "system")
    assert [frame["event"] for frame in frames] == ["phx_reply", "system"]
    assert frames[-1]["payload"]["status"] == "error"


async def test_a_join_is_answered_and_never_confirmed(
    client: Client, sandbox: Servers, database: Database
) -> None:
    misbehave(sandbox, "realtime/withhold?seconds=60")
    await client.join(binding())
    assert (await client.receive())["payload"]["status"] == "ok"
    add_membership(database.connect(), "unheard")
    assert await client.sync() == []
    misbehave(sandbox, "realtime/withhold?seconds=0")
    assert is_live((await client.join_live(binding(), topic="realtime:other"))[-1])


async def test_failures_of_different_names_do_not_disturb_each_other(sandbox: Servers) -> None:
    headers = {"apikey": sandbox.anon_key, "Authorization": f"Bearer {sandbox.service_role_key}"}
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers, timeout=PATIENCE_SECONDS) as http:
        misbehave(sandbox, "rest/fail?name=a&status=503&seconds=60")
        misbehave(sandbox, "rest/fail?name=b&status=429&retry_after=7&sqlstate=&seconds=60")
        assert (await http.post(RPC)).status_code == 503
        misbehave(sandbox, "rest/fail?name=a&seconds=0")
        limited = await http.post(RPC)
        assert (limited.status_code, limited.headers["Retry-After"]) == (429, "7")
        misbehave(sandbox, "rest/fail?name=b&seconds=0")
        assert (await http.post(RPC)).status_code == 200


@pytest.mark.parametrize("fault", TIMED_FAULTS)
def test_every_failure_is_in_the_table(fault: str) -> None:
    assert f"| `realtime/{fault}" in (faults.__doc__ or "")
