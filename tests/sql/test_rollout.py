"""The definitions of membership in `docs/rollout.md`, each as it stands there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from priorityd.daemon.sandbox.migrate import apply_migrations
from tests.support.database import schema_sql
from tests.support.repository import DOCS
from tests.support.world import session

if TYPE_CHECKING:
    from tests.support.database import Database
    from tests.support.world import World

# Indented under a number of a list, or not.
_BLOCK = re.compile(r"^( *)```sql\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
BLOCKS = {
    block.split("\n")[0].strip().removeprefix("-- "): block
    for _, block in _BLOCK.findall((DOCS / "rollout.md").read_text())
}


def counted(world: World) -> set[str]:
    """The slugs of the workspaces that count, and that priorities follow them, with nothing left to do."""
    world.sweep()
    assert world.sweep()["changed"] == 0
    wrong = world.value(
        """select count(*) from tracked_repositories t where t.is_workspace_repo is distinct from
        exists (select from priorityd.memberships() m where m.repository_id = t.repository_id)"""
    )
    assert wrong == 0
    query = "select distinct slug from workspaces w join priorityd.memberships() m on m.workspace_id = w.id"
    return {slug for (slug,) in world.execute(query).fetchall()}


def checked(world: World) -> tuple[bool, bool]:
    """Whether the definition is the operator's own, and whether the planner sees through it."""
    found = world.call("check_workspace_priorities")["memberships"]
    return found["own"], found["inlined"]


def one_workspace_for_each(world: World, *slugs: str) -> None:
    for slug in slugs:
        workspace = world.add(world.tracked())
        world.execute("update workspaces set slug = %s, tier = %s where id = %s", slug, slug, workspace)


def test_every_block_has_a_test() -> None:
    assert set(BLOCKS) == {
        "preview",
        "ten per cent",
        "paying tiers",
        "trials",
        "as installed",
        "before installing",
    }


def test_ten_per_cent_by_hash_are_about_ten_and_stay_in_when_it_is_more(world: World) -> None:
    world.execute("insert into workspaces (slug) select 'w' || n from generate_series(1, 1000) n")
    world.execute(
        """with
        r as (insert into repositories (owner, name) select 'o', slug from workspaces returning id, name),
        t as (insert into tracked_repositories (repository_id) select id from r)
        insert into workspace_repositories (workspace_id, repository_id)
        select w.id, r.id from workspaces w join r on r.name = w.slug"""
    )
    world.execute(BLOCKS["ten per cent"])
    ten = counted(world)
    assert 60 < len(ten) < 140
    assert checked(world) == (True, True)
    world.execute(BLOCKS["ten per cent"].replace("< 10\n", "< 50\n"))
    half = counted(world)
    assert ten < half
    assert 430 < len(half) < 570
    world.execute(BLOCKS["as installed"])
    assert len(counted(world)) == 1000
    assert checked(world) == (False, True)


def test_paying_tiers(world: World) -> None:
    one_workspace_for_each(world, "free", "pro", "enterprise")
    world.execute(BLOCKS["paying tiers"])
    assert counted(world) == {"pro", "enterprise"}
    assert checked(world) == (True, True)
    world.execute("update workspaces set tier = 'free' where slug = 'pro'")
    assert counted(world) == {"enterprise"}
    world.execute("update workspaces set is_active = false where slug = 'enterprise'")
    assert counted(world) == set()


def test_trials_that_are_not_over(world: World) -> None:
    world.execute("alter table workspaces add column trial_ends_at timestamptz")
    one_workspace_for_each(world, "free", "pro", "on trial", "trial over")
    world.execute("update workspaces set trial_ends_at = now() + '1 day' where slug = 'on trial'")
    world.execute(
        "update workspaces set trial_ends_at = now() - interval '1 second' where slug = 'trial over'"
    )
    world.execute(BLOCKS["trials"])
    assert counted(world) == {"pro", "on trial"}
    assert checked(world) == (True, True)


def test_the_first_day_can_begin_with_a_part(empty_database: Database) -> None:
    world = session(empty_database)
    for name in ("roles", "application"):
        world.connection.execute(schema_sql(name))
    one_workspace_for_each(world, "free", "pro")
    world.execute(BLOCKS["before installing"])
    world.execute(BLOCKS["paying tiers"])
    apply_migrations(world.connection)
    flagged = "select count(*) from tracked_repositories where is_workspace_repo"
    assert world.value(flagged) == 1, "the backfill has marked that part only"
    assert counted(world) == {"pro"}


def test_the_preview_shows_what_would_change_and_changes_nothing(world: World) -> None:
    one_workspace_for_each(world, "free", "pro")
    world.sweep()
    shown = None
    for statement in re.split(r"(?<=;)\n(?! *select m)", BLOCKS["preview"]):
        cursor = world.execute(statement) if statement.strip() else None
        if cursor is not None and cursor.description:
            row = cursor.fetchone()
            assert row is not None
            shown = row[0]
    assert shown is not None
    assert shown.count('"new_priority": "medium"') == 2
    assert counted(world) == {"free", "pro"}
    assert checked(world) == (False, True)


def test_a_definition_on_top_of_the_default_one_may_repeat_pairs(world: World) -> None:
    world.execute("create table subscriptions (workspace_id uuid)")
    repository = world.tracked()
    workspace = world.add(repository)
    world.execute("insert into subscriptions select %s from generate_series(1, 2)", workspace)
    world.execute(
        """create or replace function priorityd.memberships()
        returns table (workspace_id uuid, repository_id uuid)
        language sql stable as $$
            select m.workspace_id, m.repository_id from priorityd.default_memberships() m
            join public.subscriptions s on s.workspace_id = m.workspace_id
        $$"""
    )
    assert checked(world) == (True, True)
    world.sweep()
    world.resync()
    assert world.row(repository).workspace_count == 1
    assert world.sweep()["changed"] == 0
