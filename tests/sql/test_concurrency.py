"""Several sessions at once: no change is lost, and there are no deadlocks.

No test sleeps. Sessions are stopped at a point by a lock that the test holds, and the test goes on when the
server says that they have got there.
"""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.effort import tries
from tests.support.world import Background, Row, World, session, sync_like_the_daemon

if TYPE_CHECKING:
    from tests.support.database import Database

STOP_HERE = 882


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
    rounds = tries(250)
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
    sessions = [Background(partial(change_and_sync, seed)) for seed in (1, 2)]
    for one in sessions:
        one.result()
    finished.set()
    beside.result()

    answer = world.sync(*repositories, p_dry_run=True)
    assert (answer["examined"], answer["changes"]) == (len(repositories), [])
