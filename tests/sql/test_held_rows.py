"""A row that somebody holds stops only itself, and nobody waits for us."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from priorityd.daemon.sandbox.migrate import undo_migrations
from tests.support.world import Background, Row, session, sync_like_the_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.database import Database
    from tests.support.world import Json


@pytest.mark.parametrize("how", ["sync", "sweep", "resync"])
def test_a_row_held_by_another_session_stops_only_itself(database: Database, how: str) -> None:
    world, holder = session(database), session(database, autocommit=False)
    workspace = world.workspace()
    repositories = [world.tracked() for _ in range(3)]
    for repository in repositories:
        world.add(repository, workspace)
    held, *free = sorted(repositories, key=lambda r: world.value(
        "select id from tracked_repositories where repository_id = %s", r
    ))  # fmt: skip
    holder.execute("select from tracked_repositories where repository_id = %s for update", held)

    answer: Json
    if how == "sync":
        answer = world.sync(*repositories)
    elif how == "sweep":
        answer = world.sweep()
    else:
        (answer,) = world.resync()

    assert answer["locked"] == [str(held)]
    assert (answer["examined"], answer["changed"]) == (3, 2)
    assert [world.row(repository) for repository in free] == [Row("high", True, 1)] * 2
    assert world.row(held) == Row("medium", False, 0)

    holder.connection.rollback()
    assert world.sync(held)["changed"] == 1


def test_a_right_row_held_by_another_session_does_not_stop_a_sweep(database: Database) -> None:
    world, holder = session(database), session(database, autocommit=False)
    held, wrong = world.tracked(), world.tracked()
    world.add(wrong)
    holder.execute("select from tracked_repositories where repository_id = %s for update", held)
    for answer in (world.sweep(), *world.resync()):
        assert answer["locked"] == []
    assert world.row(wrong) == Row("high", True, 1)


def test_a_dry_run_waits_for_nobody(database: Database) -> None:
    world, holder = session(database), session(database, autocommit=False)
    repository = world.tracked()
    world.add(repository)
    holder.execute("select from tracked_repositories where repository_id = %s for update", repository)
    answer = world.sync(repository, p_dry_run=True)
    assert (answer["changed"], answer["locked"]) == (1, [])


def test_an_application_that_refers_to_a_row_holds_nobody(database: Database) -> None:
    """A foreign key check takes FOR KEY SHARE, which our lock does not conflict with."""
    world, application = session(database), session(database, autocommit=False)
    repository = world.tracked()
    world.add(repository)
    application.execute("select from tracked_repositories where repository_id = %s for key share", repository)
    answer = world.sync(repository)
    assert (answer["changed"], answer["locked"]) == (1, [])


def test_of_several_rows_takes_the_free_ones_and_waits_for_none(database: Database) -> None:
    world, application = session(database), session(database, autocommit=False)
    workspace = world.workspace()
    free, held = world.tracked(), world.tracked()
    for repository in (free, held):
        world.add(repository, workspace)
    application.execute("select from tracked_repositories where repository_id = %s for update", held)
    # The call ends although the row stays locked: had it waited, it would hold the free one meanwhile.
    assert world.sync(free, held)["locked"] == [str(held)]
    assert world.row(free) == Row("high", True, 1)
    assert world.row(held) == Row("medium", False, 0)
    application.connection.commit()
    sync_like_the_daemon(world, free, held)
    assert world.row(held) == Row("high", True, 1)


def test_a_single_row_is_waited_for(database: Database) -> None:
    world, calling, application = session(database), session(database), session(database, autocommit=False)
    repository = world.tracked()
    world.add(repository)
    # Else the test would have to be faster than its tenth of a second.
    world.execute("alter function sync_workspace_priorities set lock_timeout = '60s'")
    application.execute("select from tracked_repositories where repository_id = %s for update", repository)
    running = Background(lambda: calling.sync(repository))
    world.wait_until_blocked(calling.pid)
    application.connection.commit()
    assert running.result()["locked"] == []
    assert world.row(repository) == Row("high", True, 1)


def test_changes_behind_which_others_queue_wait_for_a_row_a_tenth_as_long(database: Database) -> None:
    world = session(database)
    repository = world.tracked()
    world.execute("create table waits (lock_timeout text)")
    world.execute(
        """create function note_wait() returns trigger language plpgsql as $$
           begin
               insert into public.waits values (current_setting('lock_timeout'));
               return new;
           end $$"""
    )
    world.execute(
        "create trigger note_wait before update on tracked_repositories"
        " for each row execute function note_wait()"
    )

    def wait_of(call: Callable[[], object]) -> str:
        world.execute("delete from waits")
        call()
        return world.value("select lock_timeout from waits")

    workspace = world.add(repository)
    assert wait_of(lambda: world.sync(repository)) == "100ms"
    world.remove(repository, workspace)
    assert wait_of(world.sweep) == "1s"
    world.add(repository, workspace)
    assert wait_of(world.resync) == "1s"
    assert wait_of(lambda: world.pin(repository, "low")) == "1s"


def test_a_pin_says_when_a_row_is_held(database: Database) -> None:
    world, holder = session(database), session(database, autocommit=False)
    repository = world.tracked()
    holder.execute("select from tracked_repositories where repository_id = %s for update", repository)
    with pytest.raises(psycopg.Error, match="is being changed by another transaction") as refused:
        world.pin(repository, "high")
    assert refused.value.sqlstate == "PT409"
    holder.connection.rollback()
    assert world.row(repository) == Row("medium", False, 0)


def test_workspace_writes_wait_for_nothing(database: Database) -> None:
    """A call in the middle of its transaction holds no lock that adding, removing or deleting needs."""
    world, calling = session(database), session(database, autocommit=False)
    repository, other = world.tracked(), world.tracked()
    workspace = world.add(repository)
    calling.sync(repository, other)
    calling.sweep()
    calling.resync()
    world.execute("set lock_timeout = '1ms'")
    world.add(other, workspace)
    world.remove(repository, workspace)
    world.execute("delete from workspaces where id = %s", workspace)


def test_two_daemons_beat_and_clear_at_once(database: Database) -> None:
    world, first, second = session(database), session(database, autocommit=False), session(database)
    ids = [world.value("select gen_random_uuid()") for _ in range(2)]
    world.execute(
        """insert into workspace_priority_heartbeats
           select gen_random_uuid(), now() - interval '2 days' from generate_series(1, 3)"""
    )
    first.call("beat_workspace_priorities", ids[0])
    second.call("beat_workspace_priorities", ids[1])
    first.connection.commit()
    assert {row[0] for row in world.execute("select daemon_id from workspace_priority_heartbeats")} == set(
        ids
    )


def test_uninstalling_takes_back_what_was_being_written(database: Database) -> None:
    world, daemon, undoing = session(database), session(database, autocommit=False), session(database)
    repository = world.tracked()
    world.add(repository)
    assert daemon.sync(repository)["changed"] == 1
    undo = Background(lambda: undo_migrations(undoing.connection))
    world.wait_until_blocked(undoing.pid)
    daemon.connection.commit()
    undo.result()
    assert world.value("select priority::text from tracked_repositories") == "medium"
