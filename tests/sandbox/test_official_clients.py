"""The clients that Supabase ships, for Python and for JavaScript, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from postgrest.exceptions import APIError
from realtime import (
    AsyncRealtimeClient,
    RealtimePostgresChangesListenEvent,
    RealtimeSubscribeStates,
)
from supabase import acreate_client

from priorityd.daemon.sandbox.keys import Keys
from tests.support.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psycopg
    from supabase import AsyncClient

    from tests.support.database import Database
    from tests.support.servers import Servers

# The client warns about how it calls its own parts.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The '(timeout|verify)' parameter is deprecated:DeprecationWarning"
)


_SCRIPT = Path(__file__).parent / "supabase_js"


@pytest.fixture
async def supabase(sandbox: Servers) -> AsyncIterator[AsyncClient]:
    client = await acreate_client(sandbox.url, sandbox.service_role_key)
    yield client
    await client.remove_all_channels()
    await client.realtime.close()
    await client.postgrest.aclose()


def change_a_membership(session: psycopg.Connection[Any]) -> str:
    """Insert, update and delete a membership, each in a transaction of its own; its id."""
    (membership,) = session.execute(
        """with w as (insert into workspaces default values returning id),
        r as (insert into repositories default values returning id)
        insert into workspace_repositories (workspace_id, repository_id) select w.id, r.id from w, r
        returning id::text"""
    ).fetchone() or (None,)
    assert membership is not None
    return str(membership)


async def test_python_calls_functions_and_understands_errors(supabase: AsyncClient) -> None:
    snapshot: Any = (await supabase.rpc("workspace_priority_snapshot").execute()).data
    assert snapshot["untracked"] == 0
    with pytest.raises(APIError) as missing:
        await supabase.rpc("no_such_function", {"a": 1}).execute()
    assert missing.value.code == "PGRST202"
    with pytest.raises(APIError) as refused:
        await supabase.rpc("get_repository_priorities", {"p_repository_ids": ["x"]}).execute()
    assert refused.value.code == "22P02"


async def test_python_is_told_that_its_key_is_wrong(sandbox: Servers) -> None:
    stranger = await acreate_client(sandbox.url, Keys.create().service_role)
    with pytest.raises(APIError) as refused:
        await stranger.rpc("workspace_priority_snapshot").execute()
    assert refused.value.message == "Invalid API key"
    await stranger.postgrest.aclose()


async def test_python_subscribes_and_hears_of_every_change(supabase: AsyncClient, database: Database) -> None:
    events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    channel = supabase.channel("wr")
    channel.on_postgres_changes(
        RealtimePostgresChangesListenEvent.All,
        schema="public",
        table="workspace_repositories",
        callback=lambda p: events.put_nowait(("change", p)),
    )
    channel.on_system(lambda payload: events.put_nowait(("system", payload)))
    states: list[RealtimeSubscribeStates] = []
    await channel.subscribe(lambda state, _: states.append(state))
    assert states == [RealtimeSubscribeStates.SUBSCRIBED]
    session = database.connect()
    async with asyncio.timeout(PATIENCE_SECONDS):
        name, system = await events.get()
        assert (name, _field(system, "status")) == ("system", "ok")
        membership = change_a_membership(session)
        _, inserted = await events.get()
        session.execute("update workspace_repositories set notes = 'n'")
        _, updated = await events.get()
        session.execute("delete from workspace_repositories")
        _, deleted = await events.get()
    assert [e["data"]["type"] for e in (inserted, updated, deleted)] == ["INSERT", "UPDATE", "DELETE"]
    assert inserted["data"]["record"]["id"] == membership
    assert updated["data"]["record"]["notes"] == "n"
    assert deleted["data"]["old_record"] == {"id": membership}


def _field(payload: Any, name: str) -> Any:
    return payload[name] if isinstance(payload, dict) else getattr(payload, name)


async def test_python_is_refused_at_the_handshake_with_a_wrong_key(sandbox: Servers) -> None:
    url = sandbox.url.replace("http", "ws", 1) + "/realtime/v1"
    client = AsyncRealtimeClient(url, Keys.create().service_role, max_retries=1)
    with pytest.raises(Exception, match="401"):
        await client.connect()


@pytest.fixture(scope="session")
def supabase_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the script and what it needs from npm."""
    directory = tmp_path_factory.mktemp("supabase_js")
    for name in ("package.json", "round_trip.mjs"):
        shutil.copy(_SCRIPT / name, directory)
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, cwd=directory, check=True, timeout=180)
    return directory


@pytest.mark.supabase_js
async def test_javascript_calls_functions_uses_tables_and_hears_of_every_change(
    supabase_js: Path, sandbox: Servers, database: Database
) -> None:
    node = await asyncio.create_subprocess_exec(
        "node", "round_trip.mjs", sandbox.url, sandbox.service_role_key,
        cwd=supabase_js, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert node.stdout is not None
    session = database.connect()
    heard: dict[str, list[Any]] = {}
    membership = ""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for line in node.stdout:
            message = json.loads(line)
            heard.setdefault(message["name"], []).append(message["value"])
            if message["name"] == "system":
                membership = change_a_membership(session)
            elif message["name"] == "change" and message["value"]["type"] == "INSERT":
                session.execute("update workspace_repositories set notes = 'n'")
            elif message["name"] == "change" and message["value"]["type"] == "UPDATE":
                session.execute("delete from workspace_repositories")
        assert await node.wait() == 0
    assert heard["rpc"][0]["status"] == 200
    assert "inversions" in heard["rpc"][0]["keys"]
    assert heard["missing"] == [{"status": 404, "code": "PGRST202"}]
    assert heard["tables"] == [
        {
            "two": [206, [{"slug": "a"}, {"slug": "b"}], 3],
            "renamed": {"name": "A"},
            "none": [None, None],
            "without": [400, "UPDATE requires a WHERE clause"],
            "upsert": [400, "PGRST127"],
            "gone": [204, 3],
        }
    ]
    assert heard["status"][0] == {"status": "SUBSCRIBED", "error": None}
    assert heard["system"][0]["status"] == "ok"
    assert [change["type"] for change in heard["change"]] == ["INSERT", "UPDATE", "DELETE"]
    assert heard["change"][0]["new"]["id"] == membership
    assert heard["change"][2]["old"] == {"id": membership}
