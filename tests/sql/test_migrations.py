"""The migrations on every kind of schema they may meet: applied, applied again, used, and undone."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from priorityd.daemon.migration_files import migration_files
from priorityd.daemon.sandbox.migrate import apply_migrations, undo_migrations
from tests.support.database import schema_sql
from tests.support.patience import PATIENCE_SECONDS
from tests.support.schemas import BY_HAND, EVERYTHING, SCHEMAS, Schema, fingerprint, in_schemas, use
from tests.support.world import Row, World

pytestmark = pytest.mark.migrations


@in_schemas()
def test_applies_twice_works_and_is_undone(bare: World, schema: Schema) -> None:
    schema.create(bare.connection)
    before = fingerprint(bare)

    assert apply_migrations(bare.connection) == [file.name for file in migration_files()]
    once = fingerprint(bare)
    assert once != before
    apply_migrations(bare.connection)
    assert fingerprint(bare) == once
    check = bare.call("check_workspace_priorities")
    assert check["publication"]["exists"] is (schema.published is not None)
    assert check["publication"]["tables"] == (schema.published or [])
    assert bare.value("select to_regclass('public.background_jobs') is not null")
    use(bare)

    undo_migrations(bare.connection)
    assert fingerprint(bare) == before
    undo_migrations(bare.connection)
    apply_migrations(bare.connection)
    assert fingerprint(bare) == once


def test_applies_to_a_project_and_is_undone(bare: World) -> None:
    """The application's own tables with Supabase's roles, default privileges and publication."""
    bare.connection.execute(schema_sql("roles"))
    bare.connection.execute(schema_sql("application"))
    before = fingerprint(bare)
    apply_migrations(bare.connection)
    use(bare)
    undo_migrations(bare.connection)
    assert fingerprint(bare) == before


def test_needs_none_of_the_roles(bare: World) -> None:
    """Roles belong to the whole server: those of other tests are renamed away until the test's rollback."""
    with bare.connection.transaction(force_rollback=True):
        for (role,) in bare.execute(
            "select rolname from pg_roles where rolname in ('anon', 'authenticated', 'service_role')"
        ).fetchall():
            bare.execute(f"alter role {role} rename to {role}_of_another_test")
        SCHEMAS["enum"].create(bare.connection)
        apply_migrations(bare.connection)
        apply_migrations(bare.connection)
        use(bare)
        undo_migrations(bare.connection)


def test_needs_no_superuser(bare: World) -> None:
    """On Supabase migrations run as the owner of the database's objects, not as a superuser."""
    owner = "owner_of_this_test"
    with bare.connection.transaction(force_rollback=True):
        bare.execute(f"create role {owner}")
        # From 16 on, who creates a role without being a superuser may not become it before this.
        bare.execute(f"grant {owner} to current_user")
        bare.execute(f"grant all on schema public to {owner}")
        bare.execute(f"grant create on database {bare.connection.info.dbname} to {owner}")
        bare.execute(f"set local role {owner}")
        SCHEMAS["empty publication"].create(bare.connection)
        before = fingerprint(bare)
        apply_migrations(bare.connection)
        assert bare.call("check_workspace_priorities")["publication"]["tables"] == EVERYTHING
        use(bare)
        undo_migrations(bare.connection)
        assert fingerprint(bare) == before


def test_works_whatever_the_search_path_of_the_caller(bare: World) -> None:
    SCHEMAS["enum"].create(bare.connection)
    bare.connection.execute("create publication supabase_realtime")
    before = fingerprint(bare)
    for search_path in ("pg_catalog", "nowhere, pg_temp"):
        bare.connection.execute(f"set search_path = {search_path}".encode())
        apply_migrations(bare.connection)
        bare.call("sweep_workspace_priorities")
        undo_migrations(bare.connection)
    bare.connection.execute("reset search_path")
    assert fingerprint(bare) == before


# What it refuses.


def test_says_which_label_an_enum_lacks_and_how_to_add_it(bare: World) -> None:
    schema = Schema("create type level as enum ('urgent', 'high')", "level")
    schema.create(bare.connection)
    before = fingerprint(bare)
    with pytest.raises(psycopg.Error, match="the enum level lacks low, medium") as refused:
        apply_migrations(bare.connection)
    hint = refused.value.diag.message_hint
    assert hint
    assert fingerprint(bare) == before

    for statement in hint.split(": ", 1)[1].rstrip(";").split("; "):
        bare.execute(statement)
    apply_migrations(bare.connection)
    use(bare)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (Schema(priority="integer"), "neither an enum nor a text type"),
        (
            Schema(last="alter table tracked_repositories add column manual_priority int"),
            "another type than priority",
        ),
        (Schema(last="drop table workspace_repositories"), "must exist before this migration"),
        (Schema(last="create table repository_priority_changes (id int)"), "was not made by this migration"),
    ],
    ids=["integer", "manual_priority of another type", "no memberships", "a table of that name"],
)
def test_refuses_what_it_can_not_work_with_and_says_what_to_do(
    bare: World, schema: Schema, complaint: str
) -> None:
    schema.create(bare.connection)
    before = fingerprint(bare)
    with pytest.raises(psycopg.Error, match=complaint) as refused:
        apply_migrations(bare.connection)
    assert refused.value.diag.message_hint
    assert fingerprint(bare) == before


def test_does_not_publish_a_table_whose_deletes_would_then_fail(bare: World) -> None:
    SCHEMAS["membership without any key"].create(bare.connection)
    warnings: list[str] = []
    bare.connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    apply_migrations(bare.connection)
    assert any("workspace_repositories has no primary key" in warning for warning in warnings)
    repository = bare.tracked()
    workspace = bare.add(repository)
    bare.remove(repository, workspace)
    assert bare.call("check_workspace_priorities")["publication"]["missing"] == ["workspace_repositories"]


SETTINGS = {
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "datestyle": "SQL, DMY",
    "intervalstyle": "iso_8601",
    "timezone": "Pacific/Chatham",
    "extra_float_digits": "-15",
    "transform_null_equals": "on",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_indexscan": "off",
    "enable_nestloop": "off",
    "default_transaction_deferrable": "on",
    "jit": "off",  # a plan that is forbidden counts as so dear before 18 that each is compiled
    "row_security": "off",
    "check_function_bodies": "on",
    "plpgsql.extra_errors": "all",
}


def test_works_whatever_a_role_or_database_has_set(bare: World) -> None:
    SCHEMAS["empty publication"].create(bare.connection)
    apply_migrations(bare.connection)
    plain = fingerprint(bare)
    undo_migrations(bare.connection)
    for name, value in SETTINGS.items():
        bare.execute(f"set {name} = '{value}'")
    for _ in range(2):
        apply_migrations(bare.connection)
    use(bare)
    assert bare.call("check_workspace_priorities")["memberships"]["own"] is False
    assert bare.value("select priorityd.queued_priority('100x5')") is None
    jobs = Jsonb([{"repository_id": str(bare.tracked())}])
    (queued,) = bare.call("queue_repository_jobs", jobs, "reviews")["jobs"]
    daemon = "00000000-0000-0000-0000-000000000001"
    (released,) = bare.call("release_ordered_jobs", daemon, 1)["jobs"]
    assert released["job_id"] == queued["job_id"]
    assert bare.call("poll_background_jobs", daemon)["available"]
    assert bare.call("list_ordered_jobs")["found"] == 1
    bare.execute("delete from background_jobs")
    for name in SETTINGS:
        bare.execute(f"reset {name}")
    assert fingerprint(bare) == plain


# The backfill.


@pytest.fixture
def application(bare: World) -> World:
    """The application before the migrations."""
    bare.connection.execute(schema_sql("roles"))
    bare.connection.execute(schema_sql("application"))
    return bare


def test_the_first_backfill_marks_workspace_repositories_and_adopts_overrides_outside(
    application: World,
) -> None:
    workspaces = [application.workspace() for _ in range(2)]
    rows = {
        (priority, count): application.tracked(priority=priority)
        for priority in ("high", "medium", "low", None)
        for count in (0, 1, 2)
    }
    for (_, count), repository in rows.items():
        for workspace in workspaces[:count]:
            application.add(repository, workspace)
    nameless = application.track(None, priority="high")

    apply_migrations(application.connection)
    for (priority, count), repository in rows.items():
        if count:
            expected = Row("high", True, count)
        else:
            expected = Row(priority, False, 0, "high" if priority == "high" else None)
        assert application.row(repository) == expected
    assert (
        application.value("select manual_priority::text from tracked_repositories where id = %s", nameless)
        == "high"
    )
    trail = application.audit()
    assert len([entry for entry in trail if entry[3]]) == 8, "one for each repository in a workspace"
    adopted = [entry[:2] for entry in trail if not entry[3]]
    assert adopted == [("high", "high")] * 2, "one for each override"
    assert {entry[-1] for entry in trail} == {"migration"}
    assert application.call("workspace_priority_snapshot")["outbox_pending"] == 0, "nobody waits for these"
    assert application.value("select count(*) from priorityd.mismatched_between(null, null)") == 0


KEEPING = {
    "before": """
        create function keep() returns trigger language plpgsql as $$ begin
            if new.organization_name = 'kept' then new := old; end if; return new; end $$;
        create trigger mine before update on tracked_repositories for each row execute function keep()""",
    "after": """
        create function keep() returns trigger language plpgsql as $$ begin
            if new.organization_name = 'kept' and new.priority = 'high' then
                update tracked_repositories set priority = old.priority,
                    is_workspace_repo = old.is_workspace_repo, workspace_count = old.workspace_count
                where id = new.id;
            end if;
            return null; end $$;
        create constraint trigger mine after update on tracked_repositories {deferred}
            for each row execute function keep()""",
}
KEEPING["at the commit"] = KEEPING["after"].format(deferred="deferrable initially deferred")
KEEPING["after"] = KEEPING["after"].format(deferred="")


@pytest.mark.parametrize("keeping", KEEPING.values(), ids=KEEPING.keys())
def test_of_a_row_that_a_trigger_keeps_as_it_was_the_first_fill_records_nothing(
    application: World, keeping: str
) -> None:
    kept, other = application.tracked(organization_name="kept"), application.tracked()
    workspace = application.add(kept)
    application.add(other, workspace)
    application.execute(keeping)
    apply_migrations(application.connection)
    assert (application.row(kept).priority, application.row(other).priority) == ("medium", "high")
    assert application.audit() == [("medium", "high", False, True, 1, "migration")]


def test_applied_again_it_leaves_what_a_change_means_to_the_daemon(application: World) -> None:
    inside, outside, joined = application.tracked(), application.tracked(), application.tracked()
    apply_migrations(application.connection)
    application.execute(
        "update tracked_repositories set priority = 'high' where repository_id in (%s, %s)", inside, outside
    )
    for repository in (inside, joined):
        application.add(repository)
    before = application.everything()
    apply_migrations(application.connection)
    assert application.everything() == before


def test_a_repository_that_was_only_high_by_workspace_is_not_adopted_after_a_rollback(
    application: World,
) -> None:
    repository = application.tracked()
    workspace = application.add(repository)
    apply_migrations(application.connection)
    undo_migrations(application.connection)
    assert application.value("select priority::text from tracked_repositories") == "medium"
    application.remove(repository, workspace)
    apply_migrations(application.connection)
    assert application.row(repository) == Row("medium", False, 0)


def test_follows_on_the_migration_of_the_requirement(application: World) -> None:
    """Its columns are there, filled by its backfill, and stale: one repository has left, one has joined."""
    stale, fresh, unknown = (application.tracked() for _ in range(3))
    application.connection.execute(BY_HAND.encode())
    application.execute(
        """update tracked_repositories set is_workspace_repo = true, workspace_count = 1, priority = 'high'
           where repository_id = %s""",
        stale,
    )
    application.execute(
        """update tracked_repositories set is_workspace_repo = null, workspace_count = null
           where repository_id = %s""",
        unknown,
    )
    application.add(fresh)
    apply_migrations(application.connection)
    application.resync()
    assert application.row(stale) == Row("medium", False, 0)
    assert application.row(fresh) == Row("high", True, 1)
    assert application.row(unknown) == Row("medium", False, 0)


def test_postgrest_is_told_to_read_the_schema_again(application: World) -> None:
    application.execute("listen pgrst")
    apply_migrations(application.connection)
    application.execute("select")
    notices = application.connection.notifies(timeout=PATIENCE_SECONDS, stop_after=1)
    assert {notice.payload for notice in notices} == {"reload schema"}
