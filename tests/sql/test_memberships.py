"""What counts as a membership, and that no role decides without seeing all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from priorityd.daemon.sandbox.migrate import apply_migrations, undo_migrations
from tests.support.database import schema_sql
from tests.support.world import Row, World, session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.database import Database

PAYING = """
    create or replace function priorityd.memberships() returns table (workspace_id uuid, repository_id uuid)
    language sql stable as $$
        select m.workspace_id, m.repository_id from public.workspace_repositories m
        join public.workspaces w on w.id = m.workspace_id and w.tier = 'pro'
    $$
"""


def test_a_workspace_that_is_switched_off_holds_nothing(world: World) -> None:
    repository = world.tracked()
    first, second = world.add(repository), world.add(repository)
    world.sync(repository)
    world.execute("update workspaces set is_active = false where id = %s", first)
    assert world.sweep()["changed"] == 1
    assert world.row(repository) == Row("high", True, 1)
    world.execute("update workspaces set is_active = null where id = %s", second)
    assert world.sweep()["changed"] == 0, "only what is known to be off does not count"
    world.execute("update workspaces set is_active = false")
    world.sweep()
    assert world.row(repository) == Row("medium", False, 0), "no override was set by anybody"
    explained = world.call("explain_repository_priority", repository)
    assert [workspace["counts"] for workspace in explained["workspaces"]] == [False, False]
    assert (explained["expected"]["priority"], explained["correct"]) == ("medium", True)
    world.execute("update workspaces set is_active = true")
    world.sync(repository)
    assert world.row(repository) == Row("high", True, 2)


def test_of_one_in_no_counting_workspace_nothing_is_reported_untracked(world: World) -> None:
    workspace = world.add(world.repository())
    assert world.sweep()["untracked"] == 1
    world.execute("update workspaces set is_active = false where id = %s", workspace)
    assert world.sweep()["untracked"] == 0
    assert world.call("get_workspace_repository_ids")["repository_ids"] == []


def test_an_operator_s_own_definition_holds_everywhere_and_is_never_overwritten(world: World) -> None:
    paying, free = world.tracked(), world.tracked()
    world.execute("update workspaces set tier = 'pro' where id = %s", world.add(paying))
    world.add(free)
    world.execute(PAYING)
    apply_migrations(world.connection)
    for repair in (lambda: world.sync(paying, free), world.sweep, world.resync):
        world.execute("update tracked_repositories set priority = 'low'")
        repair()
        assert (world.row(paying), world.row(free)) == (Row("high", True, 1), Row("medium", False, 0))
    check = world.call("check_workspace_priorities")["memberships"]
    assert (check["own"], check["inlined"], check["memberships"]) == (True, True, 1)


def test_a_definition_made_before_installing_is_kept_and_printed_when_it_goes(
    empty_database: Database,
) -> None:
    world = session(empty_database)
    for name in ("roles", "application"):
        world.connection.execute(schema_sql(name))
    world.execute("create schema priorityd")
    world.execute(PAYING)
    paying, free = world.tracked(), world.tracked()
    world.execute("update workspaces set tier = 'pro' where id = %s", world.add(paying))
    world.add(free)
    apply_migrations(world.connection)
    assert (world.row(paying).priority, world.row(free).priority) == ("high", "medium")
    notices: list[str] = []
    world.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    undo_migrations(world.connection)
    assert any("w.tier = 'pro'" in notice for notice in notices)


def test_a_definition_of_another_shape_is_refused_with_words(empty_database: Database) -> None:
    world = session(empty_database)
    world.connection.execute(schema_sql("application"))
    world.execute("create schema priorityd")
    world.execute(
        "create function priorityd.memberships() returns setof uuid language sql as 'select null::uuid'"
    )
    with pytest.raises(psycopg.Error, match=r"must return TABLE\(workspace_id uuid, repository_id uuid\)"):
        apply_migrations(world.connection)


def test_the_check_says_when_the_planner_can_t_see_through_it(world: World) -> None:
    world.execute(PAYING.replace("stable as", "stable set work_mem = '4MB' as"))
    assert world.call("check_workspace_priorities")["memberships"]["inlined"] is False


def test_it_follows_a_table_that_was_swapped_for_another(world: World) -> None:
    """A view in its place would go on reading the old one, and hold its columns."""
    repository = world.tracked()
    world.execute(
        """alter table workspace_repositories rename to old_memberships;
           create table workspace_repositories (like old_memberships including all);
           alter table old_memberships drop column workspace_id"""
    )
    world.add(repository)
    world.sweep()
    assert world.row(repository) == Row("high", True, 1)


# The caller must see everything.


@pytest.fixture
def restricted(world: World) -> Iterator[World]:
    """A world whose functions are called by a role that row level security applies to, and that sees all."""
    role = "seer_of_this_test"
    world.execute(f"create role {role}")
    world.execute(f"grant {role} to current_user")
    try:
        world.execute(f"grant usage on schema priorityd, public to {role}")
        world.execute("select priorityd.grant_access()")
        world.execute(f"grant select on all tables in schema public to {role}")
        world.execute(f"grant update on tracked_repositories to {role}")
        for table in ("tracked_repositories", "workspace_repositories", "workspaces"):
            world.execute(f"create policy seen on {table} for select to {role} using (true)")
        world.execute(f"create policy written on tracked_repositories for update to {role} using (true)")
        world.execute(f"set role {role}")
        yield world
    finally:
        world.execute(f"reset role; drop owned by {role}; drop role {role}")


def as_owner(world: World, statement: str) -> None:
    world.execute(f"reset role; {statement}; set role seer_of_this_test")


@pytest.fixture
def held(restricted: World) -> World:
    as_owner(restricted, "select")
    restricted.execute("reset role")
    repository = restricted.tracked()
    restricted.add(repository)
    restricted.sync(repository)
    restricted.execute("set role seer_of_this_test")
    return restricted


CALLS = [
    "select sync_workspace_priorities(array(select repository_id from tracked_repositories))",
    "select sweep_workspace_priorities()",
    "select sweep_workspace_priorities(p_dry_run => true)",
    "select resync_workspace_priorities_page(null, 100)",
    "select rollback_workspace_priorities()",
]
HIDING = {
    "a restrictive policy hides memberships":
        "create policy hiding on workspace_repositories as restrictive using (false)",
    "a restrictive policy for everybody hides workspaces":
        "create policy hiding on workspaces as restrictive to public using (is_active)",
    "a restrictive policy keeps rows from being written":
        "create policy hiding on tracked_repositories as restrictive for update using (priority <> 'high')",
    "no policy lets memberships through": "drop policy seen on workspace_repositories",
    "a policy lets some memberships through":
        "drop policy seen on workspace_repositories;"
        " create policy seen on workspace_repositories for select using (is_pinned)",
    "no policy lets rows be written": "drop policy written on tracked_repositories",
}  # fmt: skip


@pytest.mark.parametrize("hiding", HIDING.values(), ids=HIDING.keys())
def test_what_a_policy_may_hide_is_never_taken_for_gone(held: World, hiding: str) -> None:
    as_owner(held, hiding)
    for call in CALLS:
        with pytest.raises(psycopg.Error, match="row level security may hide rows") as refused:
            held.execute(call)
        assert refused.value.sqlstate == "PT503", call
        assert refused.value.diag.message_hint, call
    held.execute("reset role")
    assert held.value("select count(*) from tracked_repositories where priority = 'high'") == 1


@pytest.mark.parametrize(
    "harmless",
    [
        "select",
        "create policy other on workspace_repositories as restrictive to anon using (false)",
        "create policy other on workspace_repositories as restrictive for delete using (false)",
        "create policy other on workspace_repositories for select using (is_pinned)",
        "alter table workspace_repositories disable row level security",
        "alter table workspace_repositories force row level security",
    ],
)
def test_what_hides_nothing_from_the_caller_stops_nothing(held: World, harmless: str) -> None:
    as_owner(held, harmless)
    for call in CALLS[:4]:
        held.execute(call)


def test_a_role_that_may_not_write_is_told_the_grant_that_it_needs(held: World) -> None:
    as_owner(held, "revoke update on tracked_repositories from seer_of_this_test")
    for call in CALLS[:2]:
        with pytest.raises(psycopg.Error, match="may not write tracked_repositories") as refused:
            held.execute(call)
        assert refused.value.sqlstate == "42501"
        assert "grant update (priority" in (refused.value.diag.message_hint or "")


def test_an_owner_from_whom_rows_are_hidden_is_told_when_installing(empty_database: Database) -> None:
    world = session(empty_database)
    owner = "owner_under_force"
    with world.connection.transaction(force_rollback=True):
        world.execute(f"create role {owner}")
        world.execute(f"grant {owner} to current_user")
        world.execute(f"grant all on schema public to {owner}")
        world.execute(f"grant create on database {world.connection.info.dbname} to {owner}")
        world.execute(f"set local role {owner}")
        world.connection.execute(schema_sql("application"))
        world.execute("alter table workspace_repositories force row level security")
        with pytest.raises(psycopg.Error, match="row level security may hide rows from owner_under_force"):
            apply_migrations(world.connection)
