"""Random histories against an oracle that shares nothing with the SQL but the rules in the README."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.support.database import in_worlds
from tests.support.effort import tries
from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database

priorities = st.sampled_from(["high", "medium", "low"])


@dataclass
class Tracked:
    """A tracked row as the oracle believes it to be."""

    repository: UUID | None
    priority: str | None = "medium"
    flag: bool | None = False
    count: int | None = 0
    manual: str | None = None

    def state(self) -> tuple[object, ...]:
        return (self.priority, self.flag, self.count, self.manual)

    def on_record(self) -> tuple[object, ...]:
        """The values whose changes the trail records."""
        return (self.priority, bool(self.flag), self.manual)


@dataclass
class Oracle:
    """What the tables should hold."""

    members: dict[UUID, set[UUID]] = field(default_factory=dict)  # by workspace
    tracked: dict[UUID, Tracked] = field(default_factory=dict)
    trail: list[tuple[object, ...]] = field(default_factory=list)

    def repair(self, rows: list[UUID], trigger: str) -> set[UUID]:
        """Correct these rows; returns those that were wrong."""
        written = set()
        for key in sorted(rows):
            row = self.tracked[key]
            before = row.state()
            old_priority, old_count, on_record = row.priority, row.count, row.on_record()
            row.count = sum(row.repository in members for members in self.members.values())
            chosen = row.manual is None and old_priority == "high" and not row.flag and not old_count
            if chosen and not row.count:
                row.manual = "high"
            row.flag = row.count > 0
            if row.flag:
                row.priority = "high"
            elif row.manual is not None:
                row.priority = row.manual
            else:
                row.priority = "medium"
            if row.state() != before:
                written.add(key)
            if on_record != row.on_record():
                self.trail.append((key, old_priority, row.priority, row.flag, row.count, row.manual, trigger))
        return written

    def wrong(self) -> list[UUID]:
        """The rows that a repair would write, in key order."""
        copy = Oracle(self.members, {key: Tracked(**vars(row)) for key, row in self.tracked.items()})
        return sorted(copy.repair(list(copy.tracked), ""))

    def pages(self, limit: int) -> list[list[UUID]]:
        """The rows as a resync looks at them: by their repositories, those without one by their own ids."""
        rows = sorted(self.tracked, key=lambda key: self.tracked[key].repository or key)
        return [rows[start : start + limit] for start in range(0, len(rows), limit)]

    def rows_of(self, repositories: set[UUID]) -> list[UUID]:
        return [key for key, row in self.tracked.items() if row.repository in repositories]


class Histories(RuleBasedStateMachine):
    world: World  # set by the test

    repositories = Bundle("repositories")
    workspaces = Bundle("workspaces")

    @initialize()
    def empty(self) -> None:
        self.oracle = Oracle()
        self.looked_at: set[UUID] = set()
        self.world.execute("truncate repositories, workspaces, repository_priority_changes cascade")

    # The application.

    @rule(target=repositories)
    def create_repository(self) -> UUID:
        return self.world.repository()

    @rule(target=workspaces)
    def create_workspace(self) -> UUID:
        workspace = self.world.workspace()
        self.oracle.members[workspace] = set()
        return workspace

    @rule(target=repositories, priority=st.none() | priorities, flag=st.none() | st.booleans())
    def create_tracked_repository(self, priority: str | None, flag: bool | None) -> UUID:
        repository = self.world.repository()
        self.track(repository, priority, flag)
        return repository

    @rule(repository=st.none() | repositories, priority=priorities)
    def track_existing(self, repository: UUID | None, priority: str) -> None:
        if repository is None or not self.oracle.rows_of({repository}):
            self.track(repository, priority, False)

    def track(self, repository: UUID | None, priority: str | None, flag: bool | None) -> None:
        key = self.world.track(repository, priority=priority, is_workspace_repo=flag)
        self.oracle.tracked[key] = Tracked(repository, priority, flag)

    @rule(repository=repositories, data=st.data())
    def fill_in_repository(self, repository: UUID, data: st.DataObject) -> None:
        empty = [key for key, row in self.oracle.tracked.items() if row.repository is None]
        if empty and not self.oracle.rows_of({repository}):
            key = data.draw(st.sampled_from(empty))
            self.world.execute(
                "update tracked_repositories set repository_id = %s where id = %s", repository, key
            )
            self.oracle.tracked[key].repository = repository

    @rule(repository=repositories, workspace=workspaces)
    def add(self, repository: UUID, workspace: UUID) -> None:
        if workspace in self.oracle.members and repository not in self.oracle.members[workspace]:
            self.world.add(repository, workspace)
            self.oracle.members[workspace].add(repository)

    @rule(repository=repositories, workspace=workspaces)
    def remove(self, repository: UUID, workspace: UUID) -> None:
        self.world.remove(repository, workspace)
        self.oracle.members.get(workspace, set()).discard(repository)

    @rule(workspace=workspaces)
    def delete_workspace(self, workspace: UUID) -> None:
        self.world.execute("delete from workspaces where id = %s", workspace)
        self.oracle.members.pop(workspace, None)

    @rule(repository=repositories, priority=st.none() | priorities)
    def override_by_hand(self, repository: UUID, priority: str | None) -> None:
        self.world.execute(
            "update tracked_repositories set priority = %s where repository_id = %s", priority, repository
        )
        for key in self.oracle.rows_of({repository}):
            self.oracle.tracked[key].priority = priority

    # The project.

    @rule(repository=repositories, priority=st.none() | priorities)
    def pin(self, repository: UUID, priority: str | None) -> None:
        for key in self.oracle.rows_of({repository}):
            row = self.oracle.tracked[key]
            old_priority, on_record = row.priority, row.on_record()
            self.world.pin(repository, priority)
            row.manual = priority
            row.count = sum(repository in members for members in self.oracle.members.values())
            row.flag = row.count > 0
            row.priority = "high" if row.flag else priority or "medium"
            if on_record != row.on_record():
                self.oracle.trail.append(
                    (key, old_priority, row.priority, row.flag, row.count, row.manual, "pin")
                )

    @rule(chosen=st.lists(repositories, max_size=5), stranger=st.booleans(), dry=st.booleans())
    def sync(self, chosen: list[UUID], stranger: bool, dry: bool) -> None:
        answer = self.world.sync(*chosen, *([uuid4(), None] if stranger else []), p_dry_run=dry)
        rows = self.oracle.rows_of(set(chosen))
        members = set().union(*self.oracle.members.values()) if self.oracle.members else set()
        tracked = {row.repository for row in self.oracle.tracked.values()}
        assert answer["untracked"] == len((set(chosen) & members) - tracked)
        assert answer["examined"] == len(rows)
        assert answer["workspace_repos"] == sum(
            self.oracle.tracked[key].repository in members for key in rows
        )
        assert answer["tracked_only_repos"] == answer["examined"] - answer["workspace_repos"]
        written = set(rows) & set(self.oracle.wrong()) if dry else self.oracle.repair(rows, "manual")
        assert {UUID(change["id"]) for change in answer["changes"]} == written

    @rule(limit=st.integers(1, 4))
    def sweep(self, limit: int) -> None:
        answer = self.world.sweep(p_limit=limit)
        wrong = self.oracle.wrong()
        changed = {UUID(change["id"]) for change in answer["changes"]}
        assert len(changed) == min(limit, len(wrong)), "any of them"
        assert self.oracle.repair([key for key in wrong if key in changed], "sweep") == changed
        assert answer["more"] == (len(wrong) > limit)
        members = set[UUID]().union(*self.oracle.members.values())
        tracked = {row.repository for row in self.oracle.tracked.values()}
        assert answer["untracked"] == len(members - tracked)

    @rule(limit=st.integers(1, 4))
    def resync(self, limit: int) -> None:
        pages = self.world.resync(limit)
        assert sum(page["examined"] for page in pages) == len(self.oracle.tracked)
        written = set[UUID]()
        for page in self.oracle.pages(limit):
            written |= self.oracle.repair(page, "resync")
        assert sum(page["changed"] for page in pages) == len(written)

    @invariant()
    def tables_are_as_expected(self) -> None:
        rows = self.world.execute(
            """select id, priority::text, is_workspace_repo, workspace_count, manual_priority::text
               from tracked_repositories"""
        )
        assert {row[0]: row[1:] for row in rows} == {
            key: row.state() for key, row in self.oracle.tracked.items()
        }
        trail = self.world.execute(
            """select tracked_repository_id, old_priority, new_priority, is_workspace_repo, workspace_count,
                   manual_priority, trigger
               from repository_priority_changes order by id"""
        )
        assert trail.fetchall() == self.oracle.trail


@in_worlds("plain", "words_text", more=("loose", "owner"))
def test_every_history_ends_as_the_rules_say(database: Database) -> None:
    world = session(database)

    class OnThisDatabase(Histories):
        pass

    OnThisDatabase.world = world
    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=tries(20),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
