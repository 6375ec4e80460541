"""The migrations as a set: applied in order, again, by halves, by two at once, older, without its lines."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from priorityd.core.database.schema import MIGRATION_SET
from priorityd.daemon.migration_files import migration_files, migrations_dir
from priorityd.daemon.sandbox.migrate import apply_migrations, run_file, undo_migrations
from tests.sql.project import SET
from tests.support.database import superuser_beside
from tests.support.effort import some_of
from tests.support.psql import psql_command
from tests.support.schemas import SCHEMAS, fingerprint, use
from tests.support.world import Background, World, session

if TYPE_CHECKING:
    from tests.support.database import Database, Server

pytestmark = pytest.mark.migrations

FILES = migration_files()
_UNIT = re.compile(r"^do (\$\w+\$).*?\1;", re.DOTALL | re.MULTILINE)


def of_set(number: int, file: Path, directory: Path) -> Path:
    """The same file as part of another set."""
    copy = directory / f"{number}_{file.name}"
    copy.write_text(SET.sub(rf"\g<1>{number}", file.read_text()))
    return copy


@pytest.fixture
def bare(empty_database: Database) -> World:
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    return world


# What it makes.


def test_the_undo_knows_every_table_of_the_schema(bare: World) -> None:
    apply_migrations(bare.connection)
    tables = bare.execute(
        """select relname from pg_class
           where relnamespace = 'priorityd'::regnamespace and relkind = 'r' order by 1"""
    ).fetchall()
    undo = (migrations_dir() / "rollback" / "uninstall.sql").read_text()
    listed = re.search(r"c_own constant name\[\] := array\[(.*?)\]", undo, re.DOTALL)
    assert listed
    assert re.findall(r"'(\w+)'", listed[1]) == [name for (name,) in tables]


def test_the_index_of_contradictions_and_those_who_read_by_it_have_one_condition(bare: World) -> None:
    apply_migrations(bare.connection)
    plan = bare.value(
        """explain (format json) select t.id from priorityd.tracked_rows() t
           where t.drifted order by t.repository_id, t.id limit 5"""
    )
    assert "idx_tracked_repos_priority_drift" in str(plan)


# Applying it.


@pytest.fixture(scope="module")
def whole(server: Server) -> list[Any]:
    """The schema with the whole set."""
    with server.database() as database:
        world = session(database)
        SCHEMAS["enum"].create(world.connection)
        apply_migrations(world.connection)
        return fingerprint(world)


# How many files were applied, or which one was left out: each file is a case.
_PLACES = {str(number): number for number in range(len(FILES))}
_USUAL_PLACES = ("0", "1", "5", "12", "20")


@pytest.mark.parametrize("count", some_of(_PLACES, *_USUAL_PLACES))
def test_a_half_installed_set_is_completed(bare: World, whole: list[Any], count: int) -> None:
    for file in FILES[:count]:
        run_file(bare.connection, file)
    apply_migrations(bare.connection)
    assert fingerprint(bare) == whole


def _refusal(world: World, file: Path) -> psycopg.Error | None:
    try:
        run_file(world.connection, file)
    except psycopg.Error as error:
        return error
    return None


@pytest.mark.parametrize("left_out", some_of(dict(list(_PLACES.items())[:-1]), *_USUAL_PLACES))
def test_a_hole_is_refused_with_words(bare: World, left_out: int) -> None:
    for file in FILES[:left_out]:
        run_file(bare.connection, file)
    refused: list[str] = []
    for file in FILES[left_out + 1 :]:
        before = fingerprint(bare) if not refused else []
        error = _refusal(bare, file)
        if error is None:
            continue
        if left_out:
            assert "needs what is not applied yet" in str(error)
            assert "priorityd migrations --into" in (error.diag.message_hint or "")
        assert refused or fingerprint(bare) == before
        refused.append(file.name)
    # The ends of the lines that may be left out, on which nothing builds.
    assert refused or FILES[left_out].name[8:14] in ("001100", "001800")


def test_under_psql_that_goes_on_after_errors_a_hole_leaves_nothing_either(
    bare: World, empty_database: Database
) -> None:
    import subprocess

    run_file(bare.connection, FILES[0])
    before = fingerprint(bare)
    for file in FILES[2:]:
        command = psql_command(empty_database.url, file)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "needs what is not applied yet" in done.stderr, file.name
    assert fingerprint(bare) == before


def test_an_older_set_is_skipped_with_a_notice(bare: World, tmp_path: Path) -> None:
    apply_migrations(bare.connection)
    before, rows = fingerprint(bare), bare.execute("select * from priorityd.migrations order by 1").fetchall()
    notices: list[str] = []
    bare.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    for file in FILES:
        run_file(bare.connection, of_set(MIGRATION_SET - 1, file, tmp_path))
    assert fingerprint(bare) == before
    assert bare.execute("select * from priorityd.migrations order by 1").fetchall() == rows
    assert len([notice for notice in notices if "is skipped: set 1 is installed" in notice]) >= len(FILES)


def test_until_the_last_unit_has_come_the_database_is_at_the_older_set(bare: World, tmp_path: Path) -> None:
    apply_migrations(bare.connection)
    newer = [of_set(MIGRATION_SET + 1, file, tmp_path) for file in FILES]
    for file in newer[:-1]:
        run_file(bare.connection, file)
    assert bare.call("workspace_priority_schema_version")["set"] == MIGRATION_SET
    run_file(bare.connection, newer[-1])
    assert bare.call("workspace_priority_schema_version")["set"] == MIGRATION_SET + 1


def test_two_who_apply_it_at_once_wait_for_each_other(bare: World, empty_database: Database) -> None:
    appliers = [session(empty_database) for _ in range(3)]
    running = [Background(partial(apply_migrations, world.connection)) for world in appliers]
    for each in running:
        each.result()
    use(bare)


_OUTBOX = ("0011",)
_ORDERED_JOBS = ("0012", "0013", "0014", "0015", "0016", "0017", "0018")
_TELEMETRY = ("0019", "0020", "0021")


@pytest.mark.parametrize(
    "left_out",
    [
        _OUTBOX,
        _ORDERED_JOBS,
        _TELEMETRY,
        (*_OUTBOX, *_ORDERED_JOBS, *_TELEMETRY),
    ],
)
def test_lines_may_be_left_out(bare: World, left_out: tuple[str, ...]) -> None:
    """The outbox, ordered jobs, job telemetry, all of them."""
    bare.connection.execute(
        """create table background_jobs (id uuid primary key, type text, payload jsonb, status text,
           repository_id uuid, created_at timestamptz, started_at timestamptz, completed_at timestamptz,
           failed_at timestamptz)"""
    )
    kept = [file for file in FILES if not file.name[8:14].startswith(left_out)]
    assert {file.name[8:12] for file in FILES} - {file.name[8:12] for file in kept} == set(left_out)
    for file in kept:
        run_file(bare.connection, file)
    use(bare)
    units = bare.call("workspace_priority_schema_version")["units"]
    assert not [unit for unit in units if unit[8:14].startswith(left_out)]
    apply_migrations(bare.connection)
    assert bare.call("poll_background_jobs", "00000000-0000-0000-0000-000000000001")["available"]
    undo_migrations(bare.connection)


def test_a_function_of_the_application_is_not_replaced(bare: World) -> None:
    bare.execute("create function check_job_lanes(p_limit integer) returns int language sql as 'select 1'")
    with pytest.raises(psycopg.Error, match=r"of that name already: check_job_lanes\(integer\)"):
        apply_migrations(bare.connection)
    assert bare.value("select check_job_lanes(5)") == 1


@pytest.mark.parametrize("taken", ["idx_tracked_repos_workspace_counts", "idx_background_jobs_started"])
@pytest.mark.parametrize("kind", ["index {} on mine (id)", "table {} ()"])
def test_what_has_the_name_of_an_index_of_ours_is_not_dropped(bare: World, kind: str, taken: str) -> None:
    bare.execute("create table mine (id int)")
    bare.execute("create " + kind.format(taken))
    for _ in range(2):
        with pytest.raises(psycopg.Error, match=f"something of that name already: {taken}") as refused:
            apply_migrations(bare.connection)
        assert "Rename it" in (refused.value.diag.message_hint or "")
    assert bare.value("select to_regclass(%s) is not null", taken)


def test_an_index_of_ours_on_a_table_that_was_swapped_is_built_on_the_new_one(bare: World) -> None:
    apply_migrations(bare.connection)
    bare.execute(
        """alter table workspace_repositories rename to old_memberships;
           create table workspace_repositories (like old_memberships including defaults)"""
    )
    apply_migrations(bare.connection)
    assert bare.call("check_workspace_priorities")["missing_indexes"] == []


def test_an_index_whose_building_was_interrupted_counts_as_missing(bare: World) -> None:
    apply_migrations(bare.connection)
    whole = fingerprint(bare)
    with superuser_beside(bare.connection) as superuser:
        superuser.execute(
            """update pg_index set indisvalid = false
               where indexrelid in (select to_regclass('public.' || name) from priorityd.indexes)"""
        )
    assert len(bare.call("check_workspace_priorities")["missing_indexes"]) >= 4
    apply_migrations(bare.connection)
    assert bare.call("check_workspace_priorities")["missing_indexes"] == []
    assert fingerprint(bare) == whole


# Undoing it.


@pytest.mark.parametrize("count", range(1, 7))
def test_what_was_applied_in_part_is_undone(bare: World, count: int) -> None:
    """Under psql each unit is a transaction of its own."""
    before = fingerprint(bare)
    units = [match[0] for file in FILES[:4] for match in _UNIT.finditer(file.read_text())]
    for unit in units[:count]:
        bare.execute(unit)
    undo_migrations(bare.connection)
    assert fingerprint(bare) == before


def test_rows_that_the_application_refuses_are_left_and_named(bare: World) -> None:
    before = fingerprint(bare)
    apply_migrations(bare.connection)
    rows = [bare.tracked() for _ in range(5)]
    workspace = bare.workspace()
    for repository in rows:
        bare.add(repository, workspace)
    bare.sync(*rows)
    refusing = bare.value("select id from tracked_repositories where repository_id = %s", rows[2])
    bare.execute(
        f"""create function refuse() returns trigger language plpgsql as $$ begin
                if new.id = '{refusing}' then raise exception 'not this one'; end if; return new; end $$;
            create constraint trigger mine after update on tracked_repositories
            deferrable initially deferred for each row execute function refuse()"""
    )
    told: list[str] = []
    bare.connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    undo_migrations(bare.connection)
    assert [line for line in told if "is left as it is" in line] == [
        f"tracked row {refusing} is left as it is: not this one"
    ]
    bare.execute("drop trigger mine on tracked_repositories; drop function refuse")
    assert fingerprint(bare) == before
    priorities = "select priority::text, count(*) from tracked_repositories group by 1 order by 1"
    assert bare.execute(priorities).fetchall() == [("high", 1), ("medium", 4)]


@pytest.mark.parametrize(
    ("built", "named"),
    [
        ("create view mine as select is_workspace_repo from tracked_repositories", "view mine"),
        ("create index mine on tracked_repositories (workspace_count)", "index mine"),
        (
            "alter table tracked_repositories add constraint mine check (workspace_count >= 0)",
            "constraint mine",
        ),
        ("create view mine as select count(*) from repository_priority_changes", "view mine"),
        ("create view mine as select * from priorityd.memberships()", "view mine"),
        ("create table priorityd.mine (id int)", "table priorityd.mine"),
    ],
)
def test_what_others_have_built_on_it_is_named_before_anything_is_undone(
    bare: World, built: str, named: str
) -> None:
    apply_migrations(bare.connection)
    repository = bare.tracked()
    bare.add(repository)
    bare.sync(repository)
    bare.execute(built)
    before = fingerprint(bare)
    with pytest.raises(psycopg.Error, match=named):
        undo_migrations(bare.connection)
    assert fingerprint(bare) == before
    assert bare.row(repository).priority == "high"
