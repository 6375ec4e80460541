"""Several sessions at once: no change is lost, there are no deadlocks, and a locked row delays only itself.

No test sleeps. Sessions are stopped at a point by a lock that the test holds, and the test goes on when the
server says that they have got there.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.effort import tries
from tests.support.world import Background, Row, World, session

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tests.support.database import Database
    from tests.support.world import Json

STOP_HERE = 882


def sync_like_the_daemon(world: World, *repositories: UUID) -> None:
    """A call, and another one for what it reports as locked."""
    waiting = list(repositories)
    while waiting:
        waiting = world.sync(*waiting, p_trigger="event")["locked"]


class Change:
    """A row that one sync is about to change, and a change of membership that comes in between."""

    def __init__(self, world: World, kind: str) -> None:
        self.kind = kind
        self.workspaces = [world.workspace(), world.workspace()]
        if kind == "first workspace added":  # the earlier sync lowers, the change raises again
            self.repository = world.tracked(priority="high", is_workspace_repo=True, workspace_count=1)
            self.outcome = Row("high", True, 1)
            return
        self.repository = world.tracked()
        world.add(self.repository, self.workspaces[0])
        if kind == "last workspace removed":
            self.outcome = Row("medium", False, 0)
        elif kind == "second workspace added":
            self.outcome = Row("high", True, 2)
        else:
            world.add(self.repository, self.workspaces[1])
            self.outcome = Row("high", True, 1)

    def make(self, world: World) -> None:
        if self.kind == "second workspace added":
            world.add(self.repository, self.workspaces[1])
        elif self.kind == "first workspace added":
            world.add(self.repository, self.workspaces[0])
        else:
            world.remove(self.repository, self.workspaces[0])


changes = pytest.mark.parametrize(
    "kind",
    [
        "first workspace added",
        "second workspace added",
        "one of two workspaces removed",
        "last workspace removed",
    ],
)


@changes
def test_no_change_is_lost_that_comes_between_finding_and_locking(database: Database, kind: str) -> None:
    world, earlier, holder = session(database), session(database), session(database, autocommit=False)
    change = Change(world, kind)
    holder.execute("select from tracked_repositories where repository_id = %s for update", change.repository)
    running = Background(lambda: sync_like_the_daemon(earlier, change.repository))
    world.wait_until_blocked(earlier.pid)

    change.make(world)
    holder.connection.rollback()
    running.result()

    # The earlier call has seen it already; the change's own call finds nothing left to do.
    assert world.row(change.repository) == change.outcome
    assert world.sync(change.repository)["changed"] == 0


@changes
def test_no_change_is_lost_that_comes_while_another_call_is_writing(database: Database, kind: str) -> None:
    """The earlier call has read the memberships and stands in the middle of its UPDATE."""
    world, earlier, later = session(database), session(database), session(database)
    holder = session(database)
    change = Change(world, kind)
    world.execute(
        f"""create function stop_here() returns trigger language plpgsql set lock_timeout = '30s' as
            'begin perform pg_advisory_xact_lock_shared({STOP_HERE}); return new; end';
            create trigger stop_here before update on tracked_repositories
            for each row execute function stop_here()"""
    )
    holder.execute(f"select pg_advisory_lock({STOP_HERE})")
    running = Background(lambda: sync_like_the_daemon(earlier, change.repository))
    world.wait_until_blocked(earlier.pid)

    change.make(world)
    following = Background(lambda: sync_like_the_daemon(later, change.repository))
    world.wait_until_blocked(later.pid)
    holder.execute(f"select pg_advisory_unlock({STOP_HERE})")
    running.result()
    following.result()

    assert world.row(change.repository) == change.outcome


@changes
def test_no_change_is_lost_that_comes_before_another_call_commits(database: Database, kind: str) -> None:
    """To the later call the row still looks right: what will make it wrong is not committed yet."""
    world, earlier, later = session(database), session(database, autocommit=False), session(database)
    change = Change(world, kind)
    earlier.sync(change.repository)

    change.make(world)
    following = Background(lambda: sync_like_the_daemon(later, change.repository))
    world.wait_until_blocked(later.pid)
    earlier.connection.commit()
    following.result()

    assert world.row(change.repository) == change.outcome


@changes
@pytest.mark.parametrize("order", ["before", "after"])
def test_no_change_is_lost_that_comes_before_or_after_a_whole_call(
    database: Database, kind: str, order: str
) -> None:
    world, earlier = session(database), session(database)
    change = Change(world, kind)
    if order == "after":
        earlier.sync(change.repository)
    change.make(world)
    if order == "before":
        earlier.sync(change.repository)
    world.sync(change.repository)
    assert world.row(change.repository) == change.outcome


@changes
def test_a_change_that_is_not_committed_does_not_count_and_does_not_hold_anybody(
    database: Database, kind: str
) -> None:
    world, application = session(database), session(database, autocommit=False)
    change = Change(world, kind)
    change.make(application)
    world.sync(change.repository)
    before = world.row(change.repository)
    application.connection.commit()
    assert before != change.outcome
    world.sync(change.repository)
    assert world.row(change.repository) == change.outcome


def test_a_change_is_not_lost_when_the_call_before_it_is_rolled_back(database: Database) -> None:
    world, earlier, later = session(database), session(database, autocommit=False), session(database)
    change = Change(world, "last workspace removed")
    earlier.sync(change.repository)
    change.make(world)
    following = Background(lambda: sync_like_the_daemon(later, change.repository))
    world.wait_until_blocked(later.pid)
    earlier.connection.rollback()
    following.result()
    assert world.row(change.repository) == change.outcome
    assert world.audit() == []


def test_two_sessions_with_overlapping_sets_never_deadlock_and_lose_nothing(database: Database) -> None:
    """Rounds each of changing memberships and syncing them among others, with sweeps and resyncs besides.

    Nothing repairs afterwards: each change has only its own sync.
    """
    rounds = tries(500)
    world = session(database)
    repositories = [world.tracked(priority=random.choice(["high", "medium"])) for _ in range(20)]
    workspaces = [world.workspace() for _ in range(3)]
    finished = threading.Event()

    def change_and_sync(seed: int) -> None:
        dice, own = random.Random(seed), session(database)
        for _ in range(rounds):
            changed = dice.sample(repositories, 3)
            for repository in changed:
                workspace = dice.choice(workspaces)
                if dice.random() < 0.5:
                    own.execute(
                        """insert into workspace_repositories (workspace_id, repository_id) values (%s, %s)
                           on conflict do nothing""",
                        workspace,
                        repository,
                    )
                else:
                    own.remove(repository, workspace)
            batch = [*changed, *dice.sample(repositories, 8)]
            dice.shuffle(batch)
            sync_like_the_daemon(own, *batch)

    def sweep_and_resync() -> None:
        own = session(database)
        while not finished.is_set():
            own.sweep()
            own.resync(7)

    beside = Background(sweep_and_resync)
    sessions = [Background(lambda seed=seed: change_and_sync(seed)) for seed in (1, 2)]
    for one in sessions:
        one.result()
    finished.set()
    beside.result()

    answer = world.sync(*repositories, p_dry_run=True)
    assert (answer["examined"], answer["changes"]) == (len(repositories), [])


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
