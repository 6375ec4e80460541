"""The writes that the check tries: what they find in schemas as applications have them; nothing remains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from priorityd.daemon.sandbox.worlds import WORLDS
from tests.support.database import in_worlds
from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database

NOT_ABOUT_ROWS = ("policies_hidden", "publication_all", "publication_owner")
"""The first refuses the migrations; the others take a superuser, and rows in them are like any."""
USUAL = ("plain", "strict", "words_text")


@pytest.fixture
def world(database: Database) -> World:
    return session(database)


def writes(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.call("check_workspace_priorities")["writes"]
    return found


@in_worlds(*USUAL, more=sorted(set(WORLDS) - {*USUAL, *NOT_ABOUT_ROWS}))
def test_in_every_world_some_row_can_be_written(world: World) -> None:
    for _ in range(2):
        world.tracked()
    found = writes(world)
    assert found["rows"] == 2
    assert all(each["rows"] < 2 for each in found["refused"]), found


def test_nothing_remains_of_them(world: World) -> None:
    world.add(world.tracked())
    world.sync(world.tracked(priority="high"))
    world.execute(
        """create table log (id uuid);
        create function log() returns trigger language plpgsql as $$ begin
            insert into log values (new.id); return new; end $$;
        create trigger log after update on tracked_repositories for each row execute function log()"""
    )
    before = world.everything()
    assert writes(world) == {"rows": 2, "refused": []}
    assert world.everything() == before
    assert world.value("select count(*) from log") == 0


def test_a_row_that_somebody_holds_is_not_waited_for(world: World, database: Database) -> None:
    world.tracked()
    other = session(database, autocommit=False)
    other.execute("update tracked_repositories set size = 'large'")
    assert writes(world) == {"rows": 1, "refused": []}
    other.connection.rollback()


def test_of_many_rows_some_are_tried(world: World) -> None:
    world.execute("insert into tracked_repositories (size) select 'small' from generate_series(1, 100)")
    assert writes(world) == {"rows": 5, "refused": []}


def test_refusals_that_are_alike_are_told_once(world: World) -> None:
    world.execute(
        "insert into tracked_repositories (size) select 'small' from generate_series(1, 4);"
        "alter table tracked_repositories add constraint narrow check (workspace_count < 1)"
    )
    (refused,) = writes(world)["refused"]
    assert (refused["rows"], refused["sqlstate"]) == (4, "23514")
    assert refused["culprits"] == ["the constraint narrow of tracked_repositories"]


def test_a_rule_that_only_our_form_of_a_write_can_t_have_is_found(world: World) -> None:
    world.tracked()
    world.execute(
        """create table log (id uuid);
           create rule log as on update to tracked_repositories do also insert into log values (new.id)"""
    )
    (refused,) = writes(world)["refused"]
    assert "rules are not supported for data-modifying statements in WITH" in refused["message"]


def test_a_trigger_that_takes_writes_back_at_the_commit_is_found(world: World) -> None:
    world.tracked()
    world.execute(
        """create function take_back() returns trigger language plpgsql as $$ begin
               if new.priority = 'high' then
                   update tracked_repositories set priority = old.priority where id = new.id;
               end if;
               return null; end $$;
           create constraint trigger mine after update on tracked_repositories deferrable initially deferred
               for each row execute function take_back()"""
    )
    (refused,) = writes(world)["refused"]
    assert refused["message"] == "the row stays as it is, without an error"
    assert "the trigger mine, which calls take_back()" in refused["culprits"]


def test_who_may_not_write_tries_nothing(world: World) -> None:
    world.tracked()
    world.execute("revoke update on tracked_repositories from service_role; set role service_role")
    assert writes(world) is None


def test_what_cannot_be_used_is_listed(world: World) -> None:
    world.execute("revoke execute on function sweep_workspace_priorities from service_role")
    world.execute("revoke insert on repository_priority_changes from service_role; set role service_role")
    check = world.call("check_workspace_priorities")
    assert check["ungranted"] == [
        "function sweep_workspace_priorities(text,integer,boolean)",
        "table repository_priority_changes",
    ]
