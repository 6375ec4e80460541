"""The harness detects what it is meant to detect."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.chaos import clock, oracle
from tests.chaos.database import prepare
from tests.chaos.deck import Deck
from tests.chaos.faults import FAULTS
from tests.chaos.floods import in_background
from tests.chaos.mischief import MISCHIEF
from tests.chaos.summary import Summary
from tests.chaos.workload import Workload
from tests.support.application import Application
from tests.support.daemon_process import environment, eventually
from tests.support.database import Database
from tests.support.proxy import serve_proxy

pytestmark = pytest.mark.chaos

_TELL_TIME = """
import sys, time
for _ in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


def test_every_fault_has_its_turn_and_those_that_want_to_be_alone_are() -> None:
    alone = [name for name, fault in FAULTS.items() if fault.is_alone]
    deck = Deck(FAULTS, alone, random.Random(3))
    seen: list[list[str]] = []
    while not deck.all_seen:
        seen.append(deck.draw())
    assert {name for names in seen for name in names} == set(FAULTS)
    assert all(len(names) == 1 for names in seen if set(names) & set(alone))
    assert max(len(names) for names in seen) == 3


@pytest.mark.skipif(clock.LIBRARY is None, reason="the library is for Linux on x86-64")
def test_a_clock_that_jumps_does_so_for_a_running_process_and_not_for_its_monotonic_clock(
    tmp_path: Path,
) -> None:
    with (
        clock.Clock(tmp_path) as host,
        subprocess.Popen(
            [sys.executable, "-c", _TELL_TIME],
            env=environment(**host.settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def ask() -> tuple[float, float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            wall, monotonic = map(float, process.stdout.readline().split())
            return wall, monotonic

        began = ask()
        for seconds in (clock.HOUR_SECONDS, -2 * clock.HOUR_SECONDS):
            before = ask()
            host.jump(seconds)
            now = ask()
            while abs(now[0] - before[0] - seconds) > 60:
                now = ask()
                assert now[1] - before[1] < 60, "it never jumped"
        assert 0 <= ask()[1] - began[1] < 120
        process.stdin.close()


@pytest.mark.skipif(clock.LIBRARY is None, reason="the library is for Linux on x86-64")
def test_nothing_of_a_killed_process_stays_in_shared_memory(tmp_path: Path) -> None:
    with clock.Clock(tmp_path) as host:
        command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
        with subprocess.Popen(command, env=environment(**host.settings), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            left = list(Path("/dev/shm").glob(f"*faketime*_{process.pid}"))
            process.kill()
    assert left != []
    assert not any(file.exists() for file in left)


async def test_a_doubled_entry_and_a_gap_in_the_audit_trail_are_found(empty_database: Database) -> None:
    await asyncio.to_thread(prepare, empty_database.url)
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        app = Application(connection)
        workspace, repository = app.workspace(), app.repository()
        for _ in range(2):
            app.add(workspace, repository)
            connection.execute("select sync_workspace_priorities(%s)", ([repository],))
            app.remove(workspace, repository)
            connection.execute("select sync_workspace_priorities(%s)", ([repository],))
        assert await oracle.audit_entries(empty_database.url) == 4
        assert await oracle.broken_audit(empty_database.url) == []
        columns = (
            "tracked_repository_id, repository_id, old_priority, new_priority, old_is_workspace_repo,"
            " is_workspace_repo, workspace_count, trigger"
        )
        connection.execute(
            f"insert into repository_priority_changes ({columns})"
            f" select {columns} from repository_priority_changes order by id desc limit 1"
        )
        assert len(await oracle.broken_audit(empty_database.url)) == 1
        connection.execute("delete from repository_priority_changes where id = 5 or id = 2")
        assert len(await oracle.broken_audit(empty_database.url)) == 1


async def test_wrong_rows_and_lost_pins_are_found(empty_database: Database) -> None:
    await asyncio.to_thread(prepare, empty_database.url)
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        app = Application(connection)
        workspace, repository = app.workspace(), app.repository()
        tracked = app.track(None)
        assert await oracle.wrong_rows(empty_database.url) == 0
        app.add(workspace, repository)
        connection.execute("insert into chaos_manual values (%s, 'low', false)", (tracked,))
        assert await oracle.wrong_rows(empty_database.url) == 2


async def test_a_high_of_the_applications_may_only_be_lost_to_a_workspace(empty_database: Database) -> None:
    await asyncio.to_thread(prepare, empty_database.url)
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        app = Application(connection)
        workspace, repository = app.workspace(), app.repository(tracked=False)
        tracked = app.track(repository)
        connection.execute("insert into chaos_manual values (%s, 'high', true)", (tracked,))
        assert await oracle.wrong_rows(empty_database.url) == 1
        app.add(workspace, repository)
        connection.execute("select sync_workspace_priorities(%s)", ([repository],))
        assert await oracle.wrong_rows(empty_database.url) == 0


async def test_an_entry_about_what_did_not_happen_is_found(empty_database: Database) -> None:
    await asyncio.to_thread(prepare, empty_database.url)
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        app = Application(connection)
        workspace, repository = app.workspace(), app.repository()
        app.add(workspace, repository)
        connection.execute("select sync_workspace_priorities(%s)", ([repository],))
        assert await oracle.false_records(empty_database.url) == 0
        connection.execute(
            """insert into repository_priority_changes (tracked_repository_id, old_priority, new_priority,
                   old_is_workspace_repo, is_workspace_repo, workspace_count, trigger)
               select tracked_repository_id, old_priority, new_priority,
                   old_is_workspace_repo, is_workspace_repo, workspace_count, trigger
               from repository_priority_changes"""
        )
        assert await oracle.false_records(empty_database.url) == 1


@pytest.mark.parametrize("world", MISCHIEF)
async def test_in_a_world_rows_that_refuse_are_named_and_not_wrong(
    empty_database: Database, world: str
) -> None:
    await asyncio.to_thread(prepare, empty_database.url, world)
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        app = Application(connection, world)
        workspace, usual = app.workspace(), app.repository()
        refusing = [app.repository(tracked=False) for _ in app.habits.refusing]
        for repository, columns in zip(refusing, app.habits.refusing, strict=True):
            app.track(repository, **columns)
        app.add(workspace, usual, *refusing)
        assert await oracle.wrong_rows(empty_database.url, world) == 1
        connection.execute("select sweep_workspace_priorities()")
        assert await oracle.wrong_rows(empty_database.url, world) == 0
        named = await oracle.unwritable(empty_database.url, world)
        assert sorted(named) == sorted(columns["repository_name"] for columns in app.habits.refusing)
        told = json.loads(Summary(seed=1, world=world, unwritable=named).as_json())
        assert told["unwritable"] == dict(named)
        parked = await oracle.may_be_parked(empty_database.url, world)
        assert {str(repository) for repository in refusing} <= parked
        assert await oracle.false_records(empty_database.url) == 0


@pytest.mark.parametrize("world", MISCHIEF)
async def test_the_workload_can_do_all_that_applications_of_a_world_do(
    empty_database: Database, world: str
) -> None:
    await asyncio.to_thread(prepare, empty_database.url, world)
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        app = Application(connection, world)
        repository, workspace = app.repository(), app.workspace()
        app.add(workspace, repository)
        for statement in MISCHIEF[world]:
            connection.execute(statement.encode(), {"workspace": workspace, "repository": repository})
        connection.execute("select sweep_workspace_priorities()")
        assert await oracle.wrong_rows(empty_database.url, world) == 0


async def test_the_workload_leaves_the_memberships_of_others_alone(empty_database: Database) -> None:
    """A watcher of its own repository would take a removal that it did not make for a missed change."""
    await asyncio.to_thread(prepare, empty_database.url)
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        app = Application(connection)
        workspace, others = app.workspace(), 100
        for _ in range(others):
            app.add(workspace, app.repository())
        workload = Workload(empty_database.url, random.Random(5))
        workload.go_on(1000)
        async with in_background(workload.run()):
            await eventually(lambda: workload.operations >= 500, 60)
        left = connection.execute(
            "select count(*) from workspace_repositories where workspace_id = %s", (workspace,)
        ).fetchone()
        assert left == (others,)


async def test_what_fails_in_the_background_is_not_kept_silent() -> None:
    async def fail() -> None:
        raise ValueError("the statement is wrong")

    with pytest.raises(ValueError, match="the statement is wrong"):
        async with in_background(fail()):
            await asyncio.sleep(0)


async def test_a_mode_of_the_proxy_ends_with_its_last_user() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(10))
        writer.close()

    async def is_answered(port: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            answer = await reader.read(1)
            writer.close()
        except OSError:
            return False
        return answer == b"x"

    async with (
        await asyncio.start_server(echo, "127.0.0.1", 0) as server,
        serve_proxy(server.sockets[0].getsockname()[1]) as proxy,
    ):
        assert await is_answered(proxy.port)
        for on in (True, True, False):
            await proxy.set("refused", on=on)
            assert not await is_answered(proxy.port)
        await proxy.set("refused", on=False)
        assert await is_answered(proxy.port)
