"""Rows that the application refuses: each is found by itself and named, and the others are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.world import Row, World, session

if TYPE_CHECKING:
    from uuid import UUID

    from tests.support.database import Database
    from tests.support.world import Json


def by_sync(world: World, repositories: list[UUID]) -> Json:
    return world.sync(*repositories)


def by_sweep(world: World, repositories: list[UUID]) -> Json:
    return world.sweep()


def by_resync(world: World, repositories: list[UUID]) -> Json:
    (page,) = world.resync()
    return page


repairers = pytest.mark.parametrize("repair", [by_sync, by_sweep, by_resync])

# Each makes rows whose organization_name is 'bad' refuse to become high.
REFUSALS = {
    "check": (
        """alter table tracked_repositories add constraint mine
           check (organization_name is distinct from 'bad' or priority <> 'high')""",
        "23514",
    ),
    "deferred": (
        """create function refuse() returns trigger language plpgsql as $$ begin
               if new.organization_name = 'bad' and new.priority = 'high' then
                   raise exception 'not this one' using errcode = '23000';
               end if;
               return null;
           end $$;
           create constraint trigger mine after update on tracked_repositories
           deferrable initially deferred for each row execute function refuse()""",
        "23000",
    ),
    **{
        state: (
            f"""create function refuse() returns trigger language plpgsql as $$ begin
                    if new.organization_name = 'bad' and new.priority = 'high' then
                        raise exception 'not this one' using errcode = '{state}';
                    end if;
                    return new;
                end $$;
                create trigger mine before update on tracked_repositories
                for each row execute function refuse()""",
            state,
        )
        for state in ("P0001", "P0004", "42501", "22012", "40001", "PT503")
    },
}
SILENT = {
    "keeps the old priority": "new.priority := old.priority; return new;",
    "returns null": "return null;",
}

FREEZE = """
    create function freeze() returns trigger language plpgsql as $$ begin
        raise exception 'no changes today'; end $$;
    create trigger mine before update on tracked_repositories for each statement execute function freeze()
"""

TAKE_BACK = """
    create function take_back() returns trigger language plpgsql as $$ begin
        if new.organization_name = 'bad' and new.priority = '{priority}' and old.priority <> '{priority}' then
            update tracked_repositories set priority = old.priority,
                is_workspace_repo = old.is_workspace_repo, workspace_count = old.workspace_count
            where id = new.id;
        end if;
        return null; end $$;
    create {constraint} trigger mine after update on tracked_repositories {deferred}
        for each row execute function take_back()
"""
taken_back = pytest.mark.parametrize(
    "when",
    [
        {"constraint": "", "deferred": ""},
        {"constraint": "constraint", "deferred": "deferrable initially deferred"},
    ],
    ids=["at once", "at the commit"],
)


def members(world: World, number: int, bad: tuple[int, ...]) -> list[UUID]:
    workspace = world.workspace()
    repositories = []
    for each in range(number):
        name = "bad" if each in bad else "acme"
        repository = world.tracked(organization_name=name, repository_name=f"repo-{each}")
        world.add(repository, workspace)
        repositories.append(repository)
    return repositories


@repairers
@pytest.mark.parametrize(("refusal", "state"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_row_that_is_refused_is_named_with_its_reason_and_stops_nobody(
    world: World, repair: object, refusal: str, state: str
) -> None:
    repositories = members(world, 20, bad=(3, 17))
    world.execute(refusal)
    answer = repair(world, repositories)  # type: ignore[operator]
    assert {refused["repository_id"] for refused in answer["refused"]} == {
        str(repositories[3]),
        str(repositories[17]),
    }
    for refused in answer["refused"]:
        assert (refused["sqlstate"], refused["name"][:4]) == (state, "bad/")
        assert refused["message"]
    assert answer["changed"] == len(answer["changes"]) == 18
    for number, repository in enumerate(repositories):
        expected = Row("medium", False, 0) if number in (3, 17) else Row("high", True, 1)
        assert world.row(repository) == expected
    assert len(world.audit()) == 18
    assert answer["locked"] == []


@repairers
def test_rows_of_a_statement_that_is_refused_as_a_whole_are_named(world: World, repair: object) -> None:
    repositories = members(world, 3, bad=())
    world.execute(FREEZE)
    answer = repair(world, repositories)  # type: ignore[operator]
    assert {refused["repository_id"] for refused in answer["refused"]} == set(map(str, repositories))
    assert {(each["sqlstate"], each["message"]) for each in answer["refused"]} == {
        ("P0001", "no changes today")
    }
    assert (answer["changed"], world.audit()) == (0, [])


def test_a_call_that_has_nothing_to_write_fires_no_trigger_of_the_application(world: World) -> None:
    repositories = members(world, 3, bad=())
    world.execute(FREEZE)
    assert world.sync(*repositories, p_dry_run=True)["changed"] == 3
    assert world.sync()["examined"] == 0
    world.execute("delete from workspace_repositories")
    assert (world.sweep()["refused"], world.resync()[0]["refused"]) == ([], [])


@repairers
@pytest.mark.parametrize("body", SILENT.values(), ids=SILENT.keys())
def test_a_row_that_silently_stays_as_it_was_is_refused_and_nothing_is_on_record(
    world: World, repair: object, body: str
) -> None:
    repositories = members(world, 5, bad=(2,))
    world.execute(
        f"""create function keep() returns trigger language plpgsql as $$ begin
                if new.organization_name = 'bad' then {body} end if; return new; end $$;
            create trigger mine before update on tracked_repositories for each row execute function keep()"""
    )
    for _ in range(3):
        answer = repair(world, repositories)  # type: ignore[operator]
        (refused,) = answer["refused"]
        assert refused["repository_id"] == str(repositories[2])
        assert "a trigger or rule of the application" in refused["message"]
        assert world.row(repositories[2]) == Row("medium", False, 0)
    assert len(world.audit()) == 4


@repairers
def test_a_priority_that_a_trigger_keeps_does_not_become_an_override(world: World, repair: object) -> None:
    repositories = members(world, 5, bad=(2,))
    world.sync(*repositories)
    world.execute(
        f"""create function keep() returns trigger language plpgsql as $$ begin
                if new.organization_name = 'bad' then {SILENT["keeps the old priority"]} end if;
                return new; end $$;
            create trigger mine before update on tracked_repositories for each row execute function keep();
            delete from workspace_repositories"""
    )
    for _ in range(2):
        assert [each["sqlstate"] for each in repair(world, repositories)["refused"]] == ["27000"]  # type: ignore[operator]
        assert world.row(repositories[2]) == Row("high", True, 1)
    world.execute("drop trigger mine on tracked_repositories")
    assert repair(world, repositories)["refused"] == []  # type: ignore[operator]
    assert {world.row(repository) for repository in repositories} == {Row("medium", False, 0)}
    assert world.value("select count(manual_priority) from tracked_repositories") == 0


@pytest.mark.parametrize(("refusal", "state"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_row_that_is_refused_stops_no_rollback(world: World, refusal: str, state: str) -> None:
    repositories = members(world, 20, bad=(3, 17))
    world.sync(*repositories)
    world.execute(refusal.replace("'high'", "'medium'"))
    for changed in (18, 0):
        answer = world.call("rollback_workspace_priorities")
        assert (answer["changed"], answer["locked"], answer["unwritten"]) == (changed, 0, 2)
        assert {refused["repository_id"] for refused in answer["refused"]} == {
            str(repositories[3]),
            str(repositories[17]),
        }
        assert {(refused["sqlstate"], refused["name"][:4]) for refused in answer["refused"]} == {
            (state, "bad/")
        }
    for number, repository in enumerate(repositories):
        assert world.row(repository) == (
            Row("high", True, 1) if number in (3, 17) else Row("medium", False, 0)
        )
    assert len(world.audit()) == 20 + 18


@pytest.mark.parametrize("body", SILENT.values(), ids=SILENT.keys())
def test_a_row_that_silently_stays_as_it_was_is_told_by_the_rollback(world: World, body: str) -> None:
    repositories = members(world, 5, bad=(2,))
    world.sync(*repositories)
    world.execute(
        f"""create function keep() returns trigger language plpgsql as $$ begin
                if new.organization_name = 'bad' then {body} end if; return new; end $$;
            create trigger mine before update on tracked_repositories for each row execute function keep()"""
    )
    answer = world.call("rollback_workspace_priorities")
    assert (answer["changed"], [each["repository_id"] for each in answer["refused"]]) == (
        4,
        [str(repositories[2])],
    )
    assert world.row(repositories[2]) == Row("high", True, 1)
    assert world.value("select count(manual_priority) from tracked_repositories") == 0


@taken_back
def test_a_row_that_a_trigger_takes_back_after_the_update_is_told_by_the_rollback(
    world: World, when: dict[str, str]
) -> None:
    repositories = members(world, 5, bad=(2,))
    world.sync(*repositories)
    world.execute(TAKE_BACK.format(priority="medium", **when))
    answer = world.call("rollback_workspace_priorities")
    assert (answer["changed"], [each["repository_id"] for each in answer["refused"]]) == (
        4,
        [str(repositories[2])],
    )
    assert world.row(repositories[2]) == Row("high", True, 1)
    assert len(world.audit(repositories[2])) == 1


def test_of_very_many_that_a_rollback_can_not_write_some_are_named(world: World) -> None:
    repositories = members(world, 600, bad=tuple(range(600)))
    world.sync(*repositories)
    world.execute(REFUSALS["P0001"][0].replace("'high'", "'medium'"))
    answer = world.call("rollback_workspace_priorities")
    assert (answer["changed"], answer["unwritten"]) == (0, 600)
    assert 100 <= len(answer["refused"]) < 600


def test_a_row_without_a_repository_is_named_as_well(world: World) -> None:
    tracked = world.track(None, priority="low", organization_name="bad")
    world.execute(
        """alter table tracked_repositories add constraint mine
           check (organization_name is distinct from 'bad' or priority <> 'medium') not valid"""
    )
    answer = world.sweep()
    assert [(refused["id"], refused["repository_id"]) for refused in answer["refused"]] == [
        (str(tracked), None)
    ]


def test_of_very_many_that_are_refused_only_so_many_are_tried_one_by_one(world: World) -> None:
    repositories = members(world, 600, bad=tuple(range(600)))
    world.execute(REFUSALS["P0001"][0])
    answer = world.sync(*repositories)
    assert len(answer["refused"]) == 600
    assert answer["changed"] == 0
    assert {refused["sqlstate"] for refused in answer["refused"]} == {"P0001"}


def test_the_application_s_triggers_see_the_search_path_that_they_know(world: World) -> None:
    world.execute(
        """create table audit_log (what text);
           create function log_it() returns trigger language plpgsql as $$ begin
               insert into audit_log values ('changed'); return new; end $$;
           create trigger mine before update on tracked_repositories for each row execute function log_it()"""
    )
    (repository,) = members(world, 1, bad=())
    assert world.sync(repository)["refused"] == []
    assert world.value("select count(*) from audit_log") == 1


@taken_back
@repairers
def test_what_a_trigger_takes_back_after_the_update_is_refused_and_not_on_record(
    world: World, repair: object, when: dict[str, str]
) -> None:
    repositories = members(world, 5, bad=(2,))
    world.execute(TAKE_BACK.format(priority="high", **when))
    for changed in (4, 0, 0):
        answer = repair(world, repositories)  # type: ignore[operator]
        (refused,) = answer["refused"]
        assert refused["repository_id"] == str(repositories[2])
        assert answer["changed"] == len(answer["changes"]) == changed
        assert world.row(repositories[2]) == Row("medium", False, 0)
    assert len(world.audit()) == 4


def test_a_call_within_a_transaction_leaves_its_deferred_constraints_deferred(
    world: World, database: Database
) -> None:
    repositories = members(world, 1, bad=())
    world.execute(
        """create table parents (id int primary key);
           create table children (id int references parents deferrable initially deferred)"""
    )
    application = session(database, autocommit=False)
    assert application.sync(*repositories)["refused"] == []
    application.execute("insert into children values (1); insert into parents values (1)")
    application.connection.commit()
    assert world.row(repositories[0]) == Row("high", True, 1)


def test_after_a_trigger_had_to_wait_once_nothing_is_waited_for(world: World, database: Database) -> None:
    """The rows that are written by then are held: who waits for one of them may be who is waited for."""
    repositories = members(world, 12, bad=(1, 5, 9))
    world.execute(
        """create table counters (n int); insert into counters values (0);
           create function count_it() returns trigger language plpgsql as $$ begin
               raise notice '%', current_setting('lock_timeout');
               if new.organization_name = 'bad' then update counters set n = n + 1 where true; end if;
               return new; end $$;
           create trigger mine before update on tracked_repositories
           for each row execute function count_it()"""
    )
    holder = database.connect(autocommit=False)
    holder.execute("update counters set n = n")
    waits: list[str] = []
    world.connection.add_notice_handler(lambda notice: waits.append(notice.message_primary or ""))
    answer = world.sweep()
    assert (answer["changed"], len(answer["locked"])) == (9, 3)
    first = waits.index("1ms")
    assert set(waits[:first]) == {"1s"}
    assert first <= len(repositories), "one attempt at all"
    assert set(waits[first:]) == {"1ms"}
    assert world.value("show lock_timeout") == "0"


def test_a_row_whose_trigger_waits_for_a_lock_is_reported_as_held(world: World, database: object) -> None:
    repositories = members(world, 3, bad=(1,))
    world.execute(
        """create table counters (n int); insert into counters values (0);
           create function count_it() returns trigger language plpgsql as $$ begin
               if new.organization_name = 'bad' then update counters set n = n + 1 where true; end if;
               return new; end $$;
           create trigger mine before update on tracked_repositories
           for each row execute function count_it()"""
    )
    holder = database.connect(autocommit=False)  # type: ignore[attr-defined]
    holder.execute("update counters set n = n")
    answer = world.sync(*repositories)
    assert (answer["changed"], answer["locked"], answer["refused"]) == (2, [str(repositories[1])], [])
    holder.rollback()
    assert world.sync(*repositories)["changed"] == 1
