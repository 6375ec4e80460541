"""What Realtime can receive, by what PostgreSQL publishes and not by names; and who owns the publication."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from priorityd.daemon.sandbox.migrate import apply_migrations, undo_migrations
from tests.support.database import superuser_beside
from tests.support.effort import some_of
from tests.support.schemas import EVERYTHING, SCHEMAS, Schema, fingerprint, use
from tests.support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.migrations

TABLE = "workspace_repositories"
PARTITIONED = """
    drop table workspace_repositories;
    create table workspace_repositories (
        id uuid not null default gen_random_uuid(),
        workspace_id uuid not null,
        repository_id uuid not null {key}
    ) partition by hash (repository_id);
    create table first_part partition of workspace_repositories for values with (modulus 2, remainder 0);
    create table second_part partition of workspace_repositories for values with (modulus 2, remainder 1);
"""
KEYED = ", primary key (id, repository_id)"


def install(world: World) -> list[str]:
    """Apply the migrations; the warnings."""
    told: list[str] = []
    world.connection.add_notice_handler(
        lambda notice: told.append(notice.message_primary or "") if notice.severity == "WARNING" else None
    )
    apply_migrations(world.connection)
    return told


@dataclass(frozen=True)
class Publication:
    """A way to publish, and what is published of the memberships after the migrations."""

    statements: str
    listed: bool = True
    missing: bool = False
    flaws: list[str] = field(default_factory=list)


ROOT = "with (publish_via_partition_root = true)"
BY_NAME = "its changes come under the names of its partitions (publish_via_partition_root is off)"
PUBLICATIONS = {
    "the partitioned table through its root": Publication(
        PARTITIONED.format(key=KEYED) + f"create publication supabase_realtime {ROOT}"
    ),
    "the partitioned table, in already": Publication(
        PARTITIONED.format(key=KEYED) + f"create publication supabase_realtime for table {TABLE} {ROOT}"
    ),
    "its partitions by their names": Publication(
        PARTITIONED.format(key=KEYED) + f"create publication supabase_realtime for table {TABLE}",
        listed=False,
        flaws=[BY_NAME],
    ),
    "a partitioned table in a publication that names partitions": Publication(
        PARTITIONED.format(key=KEYED) + "create publication supabase_realtime", listed=False, flaws=[BY_NAME]
    ),
    "a partitioned table without a key": Publication(
        PARTITIONED.format(key="") + f"create publication supabase_realtime {ROOT}",
        listed=False,
        missing=True,
    ),
    "a partition of a published table": Publication(
        f"""drop table {TABLE};
        create table everything (
            id uuid primary key default gen_random_uuid(), workspace_id uuid, repository_id uuid
        ) partition by hash (id);
        create table {TABLE} partition of everything for values with (modulus 1, remainder 0);
        create publication supabase_realtime for table everything {ROOT}""",
        listed=False,
        flaws=["its changes come under the name of everything, of which it is a partition"],
    ),
    "an unlogged table": Publication(
        f"alter table {TABLE} set unlogged; create publication supabase_realtime",
        listed=False,
        flaws=["PostgreSQL publishes no unlogged table"],
    ),
    "inserts alone": Publication(
        f"create publication supabase_realtime for table {TABLE} with (publish = 'insert')",
        flaws=["updates, deletes are not published"],
    ),
    "some rows": Publication(
        f"create publication supabase_realtime for table {TABLE} where (id is not null)",
        flaws=["a row filter leaves rows out"],
    ),
    "some columns": Publication(
        f"create publication supabase_realtime for table {TABLE} (id, workspace_id)",
        flaws=["a column list leaves out repository_id"],
    ),
    "enough columns": Publication(
        f"create publication supabase_realtime for table {TABLE} (id, repository_id)"
    ),
}

USUAL = (
    "the partitioned table through its root",
    "its partitions by their names",
    "some rows",
    "some columns",
)


@pytest.mark.parametrize("publication", some_of(PUBLICATIONS, *USUAL))
def test_a_publication_is_judged_by_what_comes_through_it(bare: World, publication: Publication) -> None:
    SCHEMAS["enum"].create(bare.connection)
    bare.connection.execute(publication.statements.encode())
    before = fingerprint(bare)
    warnings = install(bare)
    check = bare.call("check_workspace_priorities")["publication"]
    assert (TABLE in check["tables"], TABLE in check["missing"]) == (publication.listed, publication.missing)
    assert check["flaws"].get(TABLE, []) == publication.flaws
    assert any(TABLE in warning for warning in warnings) is bool(publication.flaws or publication.missing)
    use(bare)
    apply_migrations(bare.connection)
    undo_migrations(bare.connection)
    assert fingerprint(bare) == before


def test_every_identifier_may_be_quoted(bare: World) -> None:
    SCHEMAS["publication of one of the tables"].create(bare.connection)
    apply_migrations(bare.connection)
    plain = fingerprint(bare)
    undo_migrations(bare.connection)
    bare.execute("set quote_all_identifiers = on")
    for _ in range(2):
        apply_migrations(bare.connection)
    use(bare)
    assert bare.call("check_workspace_priorities")["publication"]["tables"] == EVERYTHING
    bare.execute("reset quote_all_identifiers")
    assert fingerprint(bare) == plain


@contextmanager
def owner_of_the_tables(world: World) -> Iterator[None]:
    """Act as a role that is not a superuser and owns all but what is there already."""
    owner = "owner_of_the_tables"
    with world.connection.transaction(force_rollback=True):
        world.execute(f"create role {owner}")
        world.execute(f"grant {owner} to current_user")
        world.execute(f"grant all on schema public to {owner}")
        world.execute(f"grant create on database {world.connection.info.dbname} to {owner}")
        world.execute(f"set local role {owner}")
        yield


def published_by_a_superuser(world: World, definition: str = "") -> None:
    with superuser_beside(world.connection) as superuser:
        superuser.execute(f"create publication supabase_realtime {definition}".encode())


def test_one_that_belongs_to_somebody_else_is_told_and_done_without(bare: World) -> None:
    published_by_a_superuser(bare)
    with owner_of_the_tables(bare):
        Schema().create(bare.connection)
        before = fingerprint(bare)
        warnings = install(bare)
        whose = bare.value("select pubowner::regrole::text from pg_publication")
        assert warnings == [
            f"{name} was not added to supabase_realtime, which belongs to {whose}" for name in EVERYTHING
        ]
        check = bare.call("check_workspace_priorities")["publication"]
        assert (check["owner"], check["missing"]) == (whose, EVERYTHING)
        use(bare)
        undo_migrations(bare.connection)
        assert fingerprint(bare) == before


def test_one_of_all_tables_that_belongs_to_somebody_else_serves(bare: World) -> None:
    published_by_a_superuser(bare, "for all tables")
    with owner_of_the_tables(bare):
        Schema().create(bare.connection)
        assert install(bare) == []
        assert bare.call("check_workspace_priorities")["publication"]["tables"] == EVERYTHING


def test_uninstalling_tells_what_it_may_not_take_out_of_one(bare: World) -> None:
    told: list[str] = []
    bare.connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    with owner_of_the_tables(bare):
        SCHEMAS["empty publication"].create(bare.connection)
        apply_migrations(bare.connection)
        bare.execute("reset role")
        bare.execute("alter publication supabase_realtime owner to current_user")
        bare.execute("set local role owner_of_the_tables")
        undo_migrations(bare.connection)
        assert bare.value("select to_regnamespace('priorityd') is null")
    assert sorted(line.partition(" stays in ")[0] for line in told if " stays in " in line) == [
        "public.tracked_repositories",
        "public.workspace_repositories",
    ]
