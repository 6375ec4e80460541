"""Trimming the record, on a real database behind the sandbox's REST surface."""

from __future__ import annotations

from uuid import uuid4

import anyio

from priorityd.daemon.database.store import open_store
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.outbox.outbox import Outbox
from priorityd.daemon.outbox.trimmer import PAGE_SIZE, Trimmer
from tests.support.daemon_process import eventually
from tests.support.database import Database
from tests.support.servers import start_servers

OLD = """
insert into repository_priority_changes (
    tracked_repository_id, new_priority, is_workspace_repo, workspace_count, trigger, changed_at
) select gen_random_uuid(), 'high', true, 1, 'event', now() - interval '91 days' from generate_series(1, %s)
"""
COUNT = "select count(*) from repository_priority_changes"


async def test_the_leader_trims_page_by_page_and_nobody_else_does(database: Database) -> None:
    connection = database.connect()
    connection.execute(OLD, (2 * PAGE_SIZE + 1,))
    connection.execute("update repository_priority_changes set changed_at = now() where id = 3")
    leads = False
    async with (
        start_servers(database.url) as server,
        open_store(server.url, server.service_role_key) as store,
        anyio.create_task_group() as tasks,
    ):
        liveness = Liveness()
        trimmer = Trimmer(Outbox(store, uuid4()), 90, is_leader=lambda: leads, liveness=liveness)
        await trimmer.turn()
        assert connection.execute(COUNT).fetchone() == (2 * PAGE_SIZE + 1,)
        leads = True
        tasks.start_soon(trimmer.run)
        await eventually(lambda: connection.execute(COUNT).fetchone() == (1,))
        trimmer.stop()
        await eventually(lambda: liveness.stalled() == [])


async def test_who_is_no_longer_the_leader_leaves_the_rest_to_the_next(database: Database) -> None:
    connection = database.connect()
    connection.execute(OLD, (2 * PAGE_SIZE + 1,))
    leads = iter([True, True, False])
    async with (
        start_servers(database.url) as server,
        open_store(server.url, server.service_role_key) as store,
    ):
        trimmer = Trimmer(Outbox(store, uuid4()), 90, is_leader=lambda: next(leads), liveness=Liveness())
        await trimmer.turn()
    assert connection.execute(COUNT).fetchone() == (PAGE_SIZE + 1,)
