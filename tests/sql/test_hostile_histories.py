"""Concurrent histories on a hostile schema, judged by what its own triggers have seen.

No constraint keeps pairs or tracked rows from repeating or lacking an id; triggers and a check refuse some
rows in several ways, keep others as they were, or are slow; workspaces are switched off and on. Six sessions
change all that and sync what they have changed, four sweep, resync and pin beside them, and nothing repairs
afterwards.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.effort import tries
from tests.support.world import Background, World, session

if TYPE_CHECKING:
    from uuid import UUID

    from tests.support.database import Database

ROUNDS = tries(25)
KINDS = ("check", "raises", "denied", "keeps", "drops", "slow")

HOSTILE = """
alter table workspace_repositories
    drop constraint workspace_repositories_workspace_id_repository_id_key,
    alter column workspace_id drop not null, alter column repository_id drop not null;
alter table tracked_repositories drop constraint tracked_repositories_repository_id_key;

alter table tracked_repositories add constraint one_workspace_at_most
    check (organization_name is distinct from 'check' or workspace_count < 2) not valid;
create function be_hostile() returns trigger language plpgsql as $$
begin
    case new.organization_name
        when 'raises' then
            if new.priority = 'high' then raise exception 'not this one'; end if;
        when 'denied' then
            if new.priority = 'medium' then raise insufficient_privilege; end if;
        when 'keeps' then new.priority := old.priority;
        when 'drops' then
            if new.is_workspace_repo then return null; end if;
        when 'slow' then perform pg_sleep(0.003);
        else null;
    end case;
    return new;
end $$;
create trigger hostile before update on tracked_repositories for each row
when (current_setting('hostile.application', true) is distinct from 'on') execute function be_hostile();

-- What was really changed, and not by the application.
create table witnessed (
    tracked_id uuid, old_priority text, priority text, old_flag boolean, flag boolean,
    old_manual text, manual text
);
create function bear_witness() returns trigger language plpgsql as $$
begin
    if (old.priority, coalesce(old.is_workspace_repo, false), old.manual_priority)
        is distinct from (new.priority, coalesce(new.is_workspace_repo, false), new.manual_priority)
    then
        insert into witnessed values (
            new.id, old.priority, new.priority, coalesce(old.is_workspace_repo, false),
            coalesce(new.is_workspace_repo, false), old.manual_priority, new.manual_priority
        );
    end if;
    return null;
end $$;
create trigger witness after update on tracked_repositories for each row
when (current_setting('hostile.application', true) is distinct from 'on') execute function bear_witness();
"""

WRONG = """
select t.id from tracked_repositories t
cross join lateral (
    select count(distinct w.id)::integer as workspaces
    from workspace_repositories wr join workspaces w on w.id = wr.workspace_id
    where wr.repository_id = t.repository_id and w.is_active is not false
) m
where (t.priority::text, t.is_workspace_repo, t.workspace_count) is distinct from (
    case when m.workspaces > 0 then 'high' else coalesce(t.manual_priority::text, 'medium') end,
    m.workspaces > 0, m.workspaces
)
"""
WITNESSED = """
select tracked_id, old_priority, priority, old_flag, flag, old_manual, manual from witnessed
"""
RECORDED = """
select tracked_repository_id, old_priority, new_priority, coalesce(old_is_workspace_repo, false),
    is_workspace_repo, old_manual_priority, manual_priority
from repository_priority_changes
"""


class Application:
    """One of the application's sessions: it changes something, and has what it touched synced."""

    def __init__(
        self, database: Database, seed: int, repositories: list[UUID], workspaces: list[UUID]
    ) -> None:
        self.dice = random.Random(seed)
        self.world, self.daemon = session(database), session(database)
        self.world.execute("set hostile.application = 'on'")
        self.repositories, self.workspaces = repositories, workspaces

    def live(self) -> None:
        changes = [
            self.add, self.add, self.add, self.remove, self.move, self.forget, self.switch, self.track,
            self.untrack, self.lose, self.override,
        ]  # fmt: skip
        for _ in range(ROUNDS):
            self.sync(self.dice.choice(changes)())

    def sync(self, touched: set[UUID]) -> None:
        waiting = [*touched, *self.dice.sample(self.repositories, 3)]
        while waiting:
            waiting = self.daemon.sync(*waiting, p_trigger="event")["locked"]

    def rows(self, query: str, *args: object) -> set[UUID]:
        return {row[0] for row in self.world.execute(query, *args) if row[0]}

    def add(self) -> set[UUID]:
        repository = self.dice.choice(self.repositories)
        for _ in range(self.dice.choice((1, 1, 2))):
            self.world.add(repository, self.dice.choice(self.workspaces))
        return {repository}

    def one_membership(self, change: str, *args: object) -> set[UUID]:
        """Change one row of a repository, if it has any."""
        repository = self.dice.choice(self.repositories)
        self.world.execute(
            f"""{change} where id in (
                select id from workspace_repositories where repository_id = %s order by random() limit 1
            )""",
            *args,
            repository,
        )
        return {repository}

    def remove(self) -> set[UUID]:
        return self.one_membership("delete from workspace_repositories")

    def move(self) -> set[UUID]:
        """A row of one workspace becomes another's, who may have one already."""
        return self.one_membership(
            "update workspace_repositories set workspace_id = %s", self.dice.choice(self.workspaces)
        )

    def forget(self) -> set[UUID]:
        """A row that loses one of its ids holds nothing any more."""
        column = self.dice.choice(("workspace_id", "repository_id"))
        return self.one_membership(f"update workspace_repositories set {column} = null")

    def switch(self) -> set[UUID]:
        workspace = self.dice.choice(self.workspaces)
        active = self.dice.choice((True, False, None))
        self.world.execute("update workspaces set is_active = %s where id = %s", active, workspace)
        return self.rows(
            "select repository_id from workspace_repositories where workspace_id = %s", workspace
        )

    def track(self) -> set[UUID]:
        repository = self.dice.choice(self.repositories)
        self.world.track(repository, organization_name=self.dice.choice((None, *KINDS)))
        return {repository}

    def untrack(self) -> set[UUID]:
        return self.rows(
            """delete from tracked_repositories where id in (
                   select id from tracked_repositories where repository_id = %s order by id offset 1
               ) returning repository_id""",
            self.dice.choice(self.repositories),
        )

    def lose(self) -> set[UUID]:
        """A tracked row changes its repository, or gets one."""
        repository, other = self.dice.sample(self.repositories, 2)
        self.world.execute(
            """update tracked_repositories set repository_id = %s where id in (
                   select id from tracked_repositories where repository_id = %s or repository_id is null
                   order by id limit 1
               )""",
            other,
            repository,
        )
        return {repository, other}

    def override(self) -> set[UUID]:
        return self.rows(
            """update tracked_repositories set priority = %s where id in (
                   select id from tracked_repositories where repository_id = %s order by random() limit 1
               ) returning repository_id""",
            self.dice.choice(("high", "medium", "low")),
            self.dice.choice(self.repositories),
        )


class Project:
    """What runs beside: sweeps, resyncs and pins, until stopped."""

    def __init__(
        self, database: Database, seed: int, repositories: list[UUID], over: threading.Event
    ) -> None:
        self.dice, self.world = random.Random(seed), session(database)
        self.repositories, self.over = repositories, over

    def work(self) -> None:
        while not self.over.is_set():
            self.dice.choice((self.world.sweep, self.resync, self.pin))()

    def resync(self) -> None:
        self.world.resync(self.dice.randint(1, 20))

    def pin(self) -> None:
        try:
            self.world.pin(self.dice.choice(self.repositories), self.dice.choice((None, "high", "low")))
        except psycopg.Error as error:
            # A row of the repository is held or refused: then none is pinned. Or it has no row by now.
            if error.sqlstate not in {"PT409", "PT422", "PT404"}:
                raise


@pytest.mark.parametrize("seed", [1, 2])
def test_no_row_that_can_be_written_is_wrong_and_the_trail_is_what_was_witnessed(
    database: Database, seed: int
) -> None:
    world = session(database)
    world.execute(HOSTILE)
    repositories = [world.repository() for _ in range(24)]
    for number, repository in enumerate(repositories):
        world.track(repository, organization_name=(None, None, *KINDS)[number % (2 + len(KINDS))])
    workspaces = [world.workspace() for _ in range(5)]
    for kind in (None, *KINDS):
        world.track(None, organization_name=kind)

    over = threading.Event()
    beside = [Background(Project(database, 100 * seed + each, repositories, over).work) for each in range(4)]
    application = [
        Background(Application(database, 10 * seed + each, repositories, workspaces).live)
        for each in range(6)
    ]
    results(application)
    over.set()
    results(beside)

    wrong = {str(row[0]) for row in world.execute(WRONG)}
    answer = world.sweep(p_limit=1000)
    assert wrong == {refused["id"] for refused in answer["refused"]}
    assert answer["locked"] == answer["changes"] == []
    assert {refused["id"] for page in world.resync(7) for refused in page["refused"]} == wrong
    witnessed, recorded = counted(world, WITNESSED), counted(world, RECORDED)
    assert witnessed == recorded
    assert len(recorded) > ROUNDS


def results(sessions: list[Background[None]]) -> None:
    for one in sessions:
        one.result()


def counted(world: World, query: str) -> list[tuple[Any, ...]]:
    return sorted(world.execute(query).fetchall(), key=str)
