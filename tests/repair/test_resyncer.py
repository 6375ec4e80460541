"""The resyncer on a real database, turn by turn."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from priorityd.core.database.answers import SyncResult
from priorityd.daemon.repair.resyncer import REFUSED_KEPT, RETRIES, Resyncer
from tests.support.application import Application
from tests.support.database import Database
from tests.support.parts import Parts


async def test_the_first_turn_looks_at_every_row(database: Database, parts: Parts) -> None:
    app, resyncer = Application(database.connect()), parts.agents.resyncer
    repositories = app.repositories(5)
    app.add(app.workspace(), *repositories[:2])
    assert resyncer.first_done_at is None
    await resyncer.turn()
    assert resyncer.first_done_at is not None
    assert resyncer.last_result == SyncResult(5, 2, 3, 0, 2)
    assert app.wrong_rows() == 0
    assert await resyncer.turn() > 0
    assert len(parts.shared.runs.recent) == 1


async def test_of_many_refused_rows_some_are_kept(database: Database, parts: Parts) -> None:
    app, resyncer = Application(database.connect()), parts.agents.resyncer
    app.add(app.workspace(), *app.repositories(REFUSED_KEPT + 5))
    app.connection.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create trigger refuse before update on tracked_repositories for each row execute function refuse()"
    )
    await resyncer.turn()
    assert resyncer.last_result is not None
    assert len(resyncer.last_result.refused) == REFUSED_KEPT
    assert parts.shared.queue.pending == REFUSED_KEPT + 5


def let_pages_fail(app: Application, condition: str) -> None:
    """From now on a page has one row, and a call fails if the condition holds for its number, `n`."""
    app.connection.execute(
        f"""create sequence calls;
        alter function resync_workspace_priorities_page rename to real_page;
        create function resync_workspace_priorities_page(
            p_after uuid, p_limit integer, p_trigger text, p_dry_run boolean default false
        ) returns jsonb language plpgsql as $$
        declare n bigint := nextval('calls');
        begin
            if {condition} then raise 'call % fails', n; end if;
            return real_page(p_after, 1, p_trigger, p_dry_run);
        end $$;
        grant usage on sequence calls to service_role""".encode()
    )


async def walk_without_pauses(resyncer: Resyncer) -> None:
    """A turn in which no retry is waited for."""

    async def hurry() -> None:
        while True:
            resyncer.wake()
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hurry)
        await resyncer.turn()
        tasks.cancel_scope.cancel()


async def test_each_page_has_its_own_retries(database: Database, parts: Parts) -> None:
    app, resyncer = Application(database.connect()), parts.agents.resyncer
    app.add(app.workspace(), *app.repositories(3))
    let_pages_fail(app, f"n % {RETRIES + 1} <> 0")
    await walk_without_pauses(resyncer)
    assert resyncer.last_result == SyncResult(3, 3, 0, 0, 3)
    assert parts.metric("resyncs_total", kind="full", trigger="start", outcome="done") == 1


async def test_a_page_that_keeps_failing_ends_the_walk_and_is_shown(database: Database, parts: Parts) -> None:
    app, resyncer = Application(database.connect()), parts.agents.resyncer
    app.add(app.workspace(), *app.repositories(3))
    let_pages_fail(app, "n > 1")
    await walk_without_pauses(resyncer)
    (calls,) = app.connection.execute("select last_value from calls").fetchone() or (0,)
    assert calls == 1 + 1 + RETRIES
    assert (resyncer.last_result, parts.shared.runs.last_resync_failed) == (None, True)
    assert parts.metric("resyncs_total", kind="full", trigger="start", outcome="failed") == 1
    (run,) = parts.shared.runs.recent
    assert (run.outcome, run.examined, run.changed) == ("failed", 1, 1)


async def test_any_number_of_requests_is_one_walk(parts: Parts) -> None:
    resyncer = parts.agents.resyncer
    await resyncer.turn()
    for _ in range(3):
        resyncer.request("signal")
    await resyncer.turn()
    await resyncer.turn()
    assert [run.trigger for run in parts.shared.runs.recent] == ["signal", "start"]


async def test_a_row_that_can_not_be_written_is_left_to_the_worker(database: Database, parts: Parts) -> None:
    app = Application(database.connect())
    good, bad = app.repositories(2)
    app.add(app.workspace(), good, bad)
    app.connection.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$"
    )
    app.connection.execute(
        "create trigger refuse before update on tracked_repositories for each row"
        f" when (old.repository_id = '{bad}') execute function refuse()".encode()
    )
    await parts.agents.resyncer.turn()
    parts.agents.worker.stop()
    await parts.agents.worker.run()
    assert (app.row(good)[0], app.row(bad)[0]) == ("high", "medium")
    assert parts.shared.queue.parked == {bad: "no (P0001)"}


async def test_who_waits_for_a_walk_is_told_that_it_will_not_come(parts: Parts) -> None:
    results = []

    async def ask() -> None:
        results.append(await parts.agents.resyncer.walk("manual"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.lowlevel.checkpoint()  # it has asked
        parts.agents.resyncer.stop()
        await parts.agents.resyncer.run()
    assert [result.errors for result in results] == [["stopped before the end"]]
