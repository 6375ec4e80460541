"""The worker on a real database, turn by turn."""

from __future__ import annotations

from structlog.testing import capture_logs

from tests.support.application import Application
from tests.support.database import Database
from tests.support.parts import Parts


async def test_a_turn_makes_right_what_is_due(database: Database, parts: Parts) -> None:
    app, worker = Application(database.connect()), parts.agents.worker
    repositories = app.repositories(3)
    app.add(app.workspace(), *repositories)
    parts.shared.intake.add(repositories)
    assert await worker.turn() == 0, "there may be more"
    assert {app.row(repository) for repository in repositories} == {("high", True, 1)}
    assert parts.metric("changes_total", old="medium", new="high", trigger="event") == 3
    assert parts.shared.queue.pending == 0


async def test_without_work_it_rests_until_something_is_due(database: Database, parts: Parts) -> None:
    worker, (repository,) = parts.agents.worker, Application(database.connect()).repositories(1)
    assert await worker.turn() > 1
    parts.shared.intake.add([repository])
    await worker.turn()
    parts.shared.intake.add([repository])
    assert 0 < await worker.turn() <= 0.2, "a change right after the last waits for others"


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
