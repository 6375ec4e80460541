"""What only a sweep found is blamed on the stream only if the stream should have delivered it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from priorityd.core.apply.drift import DriftJudge
from priorityd.core.history import History
from priorityd.core.stream.hints import WORKSPACE_REPOSITORIES, Hint
from priorityd.daemon.backoff import MAX_ATTEMPTS
from priorityd.daemon.clock import monotonic, since_boot
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.repair.drift_watch import LOOKED_AT, DriftWatch
from priorityd.daemon.repair.runs import Runs
from priorityd.daemon.status.metrics import Metrics
from tests.support.answers import answering, http
from tests.support.application import Application
from tests.support.database import Database
from tests.support.parts import Parts


@pytest.fixture
def app(database: Database) -> Application:
    return Application(database.connect())


@pytest.fixture
def watched(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """The leader, with a stream that has been live for long, and no wait for late announcements."""
    parts.shared.leadership.lease.answered(since_boot(), held=True, expires_in_seconds=600)
    monkeypatch.setattr(parts.agents.listener, "_whole_since", monotonic())
    monkeypatch.setattr(parts.shared.drift_judge, "_grace_seconds", -1)
    return parts


async def sweep(parts: Parts) -> int:
    """One by timer, and what is to blame for what it found."""
    parts.agents.sweeper._pace.hurry()
    await parts.agents.sweeper.turn()
    await parts.agents.drift_watch.judge()
    return parts.agents.drift_watch.drift_repaired


async def test_a_membership_that_came_and_was_not_announced_is_drift(
    app: Application, watched: Parts
) -> None:
    (repository,) = app.repositories(1)
    assert await sweep(watched) == 0
    app.add(app.workspace(), repository)
    assert await sweep(watched) == 1
    assert watched.metric("drift_repaired_total") == 1
    assert watched.shared.history.minutes(datetime.now(UTC))[-1].drift_repaired == 1


async def test_times_without_a_zone_end_nothing(app: Application, watched: Parts) -> None:
    app.connection.execute("alter table workspace_repositories alter added_at type timestamp")
    (repository,) = app.repositories(1)
    assert await sweep(watched) == 0
    app.add(app.workspace(), repository)
    assert await sweep(watched) == 1


async def test_what_was_wrong_before_the_first_sweep_is_nobodys_loss(
    app: Application, watched: Parts
) -> None:
    (repository,) = app.repositories(1)
    app.add(app.workspace(), repository)
    assert await sweep(watched) == 0
    assert app.row(repository)[0] == "high"


async def test_a_workspace_that_is_switched_off_or_on_is_no_loss(app: Application, watched: Parts) -> None:
    workspace, (repository,) = app.workspace(), app.repositories(1)
    app.add(workspace, repository)
    app.connection.execute("update workspace_repositories set added_at = now() - interval '1 day'")
    await sweep(watched)
    for active, priority in ((False, "medium"), (True, "high")):
        app.connection.execute("update workspaces set is_active = %s", (active,))
        assert await sweep(watched) == 0
        assert app.row(repository)[0] == priority


async def test_a_row_that_could_not_be_written_and_is_mended_later_is_no_loss(
    app: Application, watched: Parts
) -> None:
    (repository,) = app.repositories(1)
    await sweep(watched)
    app.connection.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create trigger refuse before update on tracked_repositories for each row execute function refuse()"
    )
    app.add(app.workspace(), repository)
    await sweep(watched)
    app.connection.execute("drop trigger refuse on tracked_repositories")
    assert await sweep(watched) == 0
    assert app.row(repository)[0] == "high"


async def test_what_a_connection_that_ended_did_not_bring_is_no_loss(
    app: Application, watched: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository,) = app.repositories(1)
    await sweep(watched)
    app.add(app.workspace(), repository)
    monkeypatch.setattr(watched.agents.listener, "_whole_since", None)
    assert await sweep(watched) == 0


async def test_what_is_announced_late_is_no_loss(
    app: Application, watched: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched.shared.drift_judge, "_grace_seconds", 600)
    (repository,) = app.repositories(1)
    await sweep(watched)
    app.add(app.workspace(), repository)
    await sweep(watched)
    assert watched.shared.drift_judge.suspects == 1
    watched.shared.intake.take_hint(hint(repository))
    assert watched.shared.drift_judge.suspects == 0


async def test_suspects_that_cant_be_looked_up_do_not_hold_up_the_sweep_one_after_the_other() -> None:
    async with answering(http(503, {"code": "PGRST000", "message": "no database"})) as (store, reasons):
        judge, now = DriftJudge(grace_seconds=-1), monotonic()
        judge.suspect([uuid4() for _ in range(LOOKED_AT)], now, now)
        watch = DriftWatch(store, judge, Runs(Metrics().repair, History()), DatabaseClock(), lambda: 0.0)
        await watch.judge()
    assert len(reasons) == MAX_ATTEMPTS
    assert watch.drift_repaired == 0


def hint(repository: UUID) -> Hint:
    at = datetime.now(UTC) - timedelta(seconds=30)
    return Hint(WORKSPACE_REPOSITORIES, "INSERT", at, (repository,), membership_id=str(uuid4()))
