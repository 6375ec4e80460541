"""The worker on a real database, turn by turn."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from structlog.testing import capture_logs

from priorityd.daemon.apply.worker import _AIM_SECONDS
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.store import open_store
from tests.support.application import Application
from tests.support.database import Database
from tests.support.parts import Parts, make_parts
from tests.support.proxy import serve_proxy
from tests.support.servers import start_servers

MANY = 10
"""So many refused in one call make the database find out whether all rows are."""


async def test_a_turn_makes_right_what_is_due(database: Database, parts: Parts) -> None:
    app, worker = Application(database.connect()), parts.agents.worker
    repositories = app.repositories(3)
    app.add(app.workspace(), *repositories)
    parts.shared.intake.add(repositories)
    assert await worker.turn() == 0, "there may be more"
    assert {app.row(repository) for repository in repositories} == {("high", True, 1)}
    assert parts.metric("changes_total", old="medium", new="high", trigger="event") == 3
    assert parts.shared.queue.pending == 0


async def test_without_work_it_rests_until_something_is_due(
    database: Database, another_daemon: Callable[..., Parts]
) -> None:
    parts = another_daemon(debounce_seconds=60, max_wait_seconds=60)
    worker, (repository,) = parts.agents.worker, Application(database.connect()).repositories(1)
    assert await worker.turn() > 1
    parts.shared.intake.add([repository])
    await worker.turn()
    parts.shared.intake.add([repository])
    assert 0 < await worker.turn() <= 60, "a change right after the last waits for others"


async def test_a_row_that_somebody_holds_is_tried_again_and_the_others_are_done(
    database: Database, parts: Parts
) -> None:
    app, holder = Application(database.connect()), database.connect(autocommit=False)
    held, free = app.repositories(2)
    app.add(app.workspace(), held, free)
    holder.execute("select from tracked_repositories where repository_id = %s for update", (held,))
    parts.shared.intake.add([held, free])
    with capture_logs() as logs:
        await parts.agents.worker.turn()
    assert [line["repositories"] for line in logs if line["event"] == "repositories_locked"] == [1]
    assert (app.row(held)[0], app.row(free)[0]) == ("medium", "high")
    holder.rollback()
    parts.agents.worker.stop()
    await parts.agents.worker.run()
    assert app.row(held) == ("high", True, 1)


async def test_a_long_way_to_the_database_makes_no_batch_smaller(database: Database) -> None:
    app = Application(database.connect())
    repositories = app.repositories(3)
    app.add(app.workspace(), *repositories)
    async with (
        start_servers(database.url) as server,
        serve_proxy(int(server.url.rpartition(":")[2])) as proxy,
        open_store(f"http://127.0.0.1:{proxy.port}", server.service_role_key) as store,
        anyio.create_task_group() as tasks,
    ):
        parts = make_parts(store, server.url, server.service_role_key)
        size = parts.agents.worker._size
        size.rows = 3
        parts.shared.intake.add(repositories)
        await proxy.set("frozen", on=True)
        tasks.start_soon(parts.agents.worker.turn)
        await anyio.sleep(3 * _AIM_SECONDS)
        await proxy.set("frozen", on=False)
    assert app.wrong_rows() == 0
    assert size.rows > 3


async def test_told_to_stop_it_finishes_what_is_waiting(database: Database, parts: Parts) -> None:
    app, worker = Application(database.connect()), parts.agents.worker
    (repository,) = app.repositories(1)
    parts.shared.intake.add([repository])
    await worker.turn()
    app.add(app.workspace(), repository)
    parts.shared.intake.add([repository])
    worker.stop()
    await worker.run()
    assert app.row(repository) == ("high", True, 1)


async def test_a_label_above_high_is_kept_and_counts_as_high(database: Database, parts: Parts) -> None:
    app, worker = Application(database.connect()), parts.agents.worker
    app.connection.execute("alter type repository_priority add value 'critical'")
    (repository,) = app.repositories(1)
    app.connection.execute("update tracked_repositories set priority = 'critical'")
    app.add(app.workspace(), repository)
    parts.shared.intake.add([repository])
    await worker.turn()
    assert app.row(repository) == ("critical", True, 1)
    assert parts.metric("changes_total", old="high", new="high", trigger="event") == 1
    (recent,) = parts.shared.recorder.recent
    assert (recent.update.old_priority, recent.update.new_priority) == ("critical", "critical")
    await parts.agents.snapshotter.turn()
    assert parts.metric("repositories", is_workspace_repo="true", priority="high") == 1


def refuse(app: Application, condition: str, sqlstate: str) -> None:
    """From now on a trigger of the application raises this where the condition holds."""
    app.connection.execute(
        f"""create function refuse() returns trigger language plpgsql as $$
        begin raise exception using errcode = '{sqlstate}', message = 'not this one'; end $$;
        create trigger refuse before update on tracked_repositories
        for each row when ({condition}) execute function refuse()""".encode()
    )


@pytest.mark.parametrize(
    "sqlstate",
    ["42501", "22023", "0A000", "42883", "28000", "PGRST", "P0001", "P0004", "40001", "08006", "PT409"],
)
async def test_one_row_that_is_refused_is_parked_alone_whatever_is_raised(
    database: Database, parts: Parts, sqlstate: str
) -> None:
    app, worker = Application(database.connect()), parts.agents.worker
    bad, good = app.repositories(2)
    app.add(app.workspace(), bad, good)
    refuse(app, f"old.repository_id = '{bad}'", sqlstate)
    parts.shared.intake.add([bad, good])
    await worker.turn()
    assert app.row(good)[0] == "high"
    assert parts.shared.queue.parked == {bad: f"not this one ({sqlstate})"}
    await parts.agents.resyncer.turn()
    assert parts.agents.resyncer.first_done_at is not None, "it must not keep the daemon from being ready"


async def test_where_every_row_is_refused_that_is_one_problem(database: Database, parts: Parts) -> None:
    app, worker = Application(database.connect()), parts.agents.worker
    *repositories, late = app.repositories(MANY + 1)
    app.add(app.workspace(), *repositories)
    refuse(app, "true", "42501")
    parts.shared.intake.add(repositories)
    with capture_logs() as logs:
        await worker.turn()
    (line,) = [line for line in logs if line["event"] == "all_writes_refused"]
    assert (line["repositories"], line["error"]) == (MANY, "not this one (42501)")
    assert worker.all_refused_because == "not this one (42501)"
    assert (parts.shared.queue.parked, parts.shared.queue.pending) == ({}, MANY)
    app.add(app.workspace(), late)
    parts.shared.intake.add([late])
    await worker.turn()
    assert parts.shared.queue.parked == {}, "what is refused meanwhile waits as well"
    app.connection.execute("drop trigger refuse on tracked_repositories")
    worker.stop()
    await worker.run()
    assert (app.wrong_rows(), worker.all_refused_because) == (0, None)


async def test_where_many_rows_are_refused_and_others_are_not_those_are_parked(
    database: Database, parts: Parts
) -> None:
    app, worker = Application(database.connect()), parts.agents.worker
    *bad, good = app.repositories(MANY + 1)
    app.add(app.workspace(), *bad)
    refuse(app, f"old.repository_id <> '{good}'", "23514")
    before = app.row(good)
    parts.shared.intake.add(bad)
    for _ in range(2):
        with capture_logs() as logs:
            await worker.turn()
        assert [line for line in logs if line["event"] == "all_writes_refused"] == []
        assert set(parts.shared.queue.parked) == set(bad)
        parts.shared.queue.unpark(monotonic(), MANY)
    assert worker.all_refused_because is None
    assert app.row(good) == before, "it was only tried"


async def test_what_a_full_disk_refuses_waits(database: Database, parts: Parts) -> None:
    app, worker = Application(database.connect()), parts.agents.worker
    (repository,) = app.repositories(1)
    app.add(app.workspace(), repository)
    refuse(app, "true", "53100")
    parts.shared.intake.add([repository])
    await worker.turn()
    assert (parts.shared.queue.parked, parts.shared.queue.pending) == ({}, 1)


async def test_a_row_without_a_repository_is_told_with_its_reason(database: Database, parts: Parts) -> None:
    app = Application(database.connect())
    said = {"organization_name": "acme", "repository_name": "web"}
    row = app.track(None, priority="high", is_workspace_repo=True, **said)
    refuse(app, "true", "42501")
    with capture_logs() as logs:
        await parts.agents.resyncer.turn()
    (line,) = [line for line in logs if line["event"] == "row_refused"]
    assert (line["error"], line["name"], line["tracked_repository_id"]) == (
        "not this one (42501)",
        "acme/web",
        str(row),
    )
    assert parts.shared.intake.nameless[row].reason == "not this one (42501)"
