"""The kinds of schema that the migrations may meet, and how to tell whether two schemas are equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from tests.support.database import superuser_beside
from tests.support.effort import some_of
from tests.support.world import Row, World

ENUM = "create type repository_priority as enum ('high', 'medium', 'low')"
BY_HAND = """
    ALTER TABLE tracked_repositories
    ADD COLUMN IF NOT EXISTS is_workspace_repo BOOLEAN DEFAULT FALSE,
    ADD COLUMN IF NOT EXISTS workspace_count INTEGER DEFAULT 0;
    CREATE INDEX IF NOT EXISTS idx_tracked_repos_workspace_priority
    ON tracked_repositories(is_workspace_repo, priority, tracking_enabled);
    COMMENT ON COLUMN tracked_repositories.workspace_count IS 'The application''s own words.';
"""


@dataclass(frozen=True)
class Schema:
    """An application's schema, as far as it differs from the least that it can be."""

    first: str = "select"
    priority: str | None = "text default 'medium'"
    tracking: str = "tracking_enabled boolean default true"
    membership_key: str = "id uuid primary key default gen_random_uuid()"
    membership_more: str = ", unique (workspace_id, repository_id)"
    last: str = "select"
    publication: str | None = None
    """One that only a superuser may create; Supabase lets postgres, to whom it then belongs."""
    published: list[str] | None = field(default=None)
    """The tables of ours that are in supabase_realtime afterwards; None when there is no such publication."""

    def create(self, connection: psycopg.Connection[Any]) -> None:
        columns = [
            "id uuid primary key default gen_random_uuid()",
            "repository_id uuid unique",
            self.tracking,
        ]
        if self.priority:
            columns.append(f"priority {self.priority}")
        connection.execute(
            f"""
            {self.first};
            create table repositories (id uuid primary key default gen_random_uuid());
            create table workspaces (id uuid primary key default gen_random_uuid());
            create table workspace_repositories (
                {self.membership_key},
                workspace_id uuid not null references workspaces on delete cascade,
                repository_id uuid not null references repositories on delete cascade
                {self.membership_more}
            );
            create table tracked_repositories ({", ".join(filter(None, columns))});
            {self.last};
            """.encode()
        )
        if self.publication:
            with superuser_beside(connection) as superuser:
                superuser.execute(f"create publication supabase_realtime {self.publication}".encode())
                superuser.execute(
                    f"alter publication supabase_realtime owner to {connection.info.user}".encode()
                )


EVERYTHING = ["tracked_repositories", "workspace_priority_heartbeats", "workspace_repositories"]
SCHEMAS = {
    "enum": Schema(ENUM, "repository_priority default 'medium'"),
    "enum of another name": Schema(ENUM.replace("repository_priority", '"Prio of Repo"'), '"Prio of Repo"'),
    "enum in another schema": Schema(
        "create schema app; create type app.level as enum ('critical', 'low', 'medium', 'high', 'none')",
        "app.level not null default 'none'",
    ),
    "enum with the columns in another order": Schema(
        "create type repository_priority as enum ('low', 'medium', 'high')", "repository_priority"
    ),
    "text": Schema(),
    "text with a check": Schema(
        priority="text not null default 'low' check (priority in ('low', 'medium', 'high'))"
    ),
    "varchar": Schema(priority="varchar(10)"),
    "domain": Schema("create domain level as text check (value in ('low', 'medium', 'high'))", "level"),
    "no priority": Schema(priority=None),
    "no priority, but the type": Schema(ENUM, None),
    "no tracking_enabled": Schema(tracking=""),
    "membership keyed by itself": Schema(
        membership_key="is_pinned boolean", membership_more=", primary key (workspace_id, repository_id)"
    ),
    "membership without any key": Schema(
        membership_key="is_pinned boolean",
        membership_more="",
        last="create publication supabase_realtime",
        published=["tracked_repositories", "workspace_priority_heartbeats"],
    ),
    "the columns added and filled by hand": Schema(last=BY_HAND),
    "the columns without defaults": Schema(
        last="""alter table tracked_repositories add column is_workspace_repo boolean;
                alter table tracked_repositories add column workspace_count integer;
                insert into tracked_repositories default values"""
    ),
    "own manual_priority": Schema(last="alter table tracked_repositories add column manual_priority text"),
    "empty publication": Schema(last="create publication supabase_realtime", published=EVERYTHING),
    "publication of one of the tables": Schema(
        last="create publication supabase_realtime for table workspace_repositories", published=EVERYTHING
    ),
    "publication of all tables": Schema(publication="for all tables", published=EVERYTHING),
    "publication of the schema": Schema(publication="for tables in schema public", published=EVERYTHING),
}


def in_schemas() -> pytest.MarkDecorator:
    """Run a test with each `schema`: with a few in every run, with the others by the marker `worlds`."""
    usual = ("enum", "text", "no priority", "the columns added and filled by hand", "empty publication")
    return pytest.mark.parametrize("schema", some_of(SCHEMAS, *usual))


# Everything that a schema consists of, as text: two equal answers are two equal schemas.
FINGERPRINT = """
    with ours as (
        select oid from pg_namespace where nspname not like 'pg\\_%' and nspname <> 'information_schema'
    )
    select 'relation', c.oid::regclass::text,
        concat_ws(' ', c.relkind, c.relacl, c.relrowsecurity, c.relreplident)
    from pg_class c where c.relnamespace in (select oid from ours)
    union all
    select 'column', format('%s.%s', a.attrelid::regclass, a.attname), concat_ws(
        ' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
        a.attidentity, col_description(a.attrelid, a.attnum))
    from pg_attribute a join pg_class c on c.oid = a.attrelid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.relnamespace in (select oid from ours) and a.attnum > 0 and not a.attisdropped
    union all
    select 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid)
    from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace in (select oid from ours)
    union all
    select 'constraint', conname, pg_get_constraintdef(oid) from pg_constraint
    where connamespace in (select oid from ours)
    union all
    select 'trigger', tgname, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
    union all
    select 'function', oid::regprocedure::text, concat_ws(' ', proacl, pg_get_functiondef(oid)) from pg_proc
    where pronamespace in (select oid from ours)
    union all
    select 'type', format_type(t.oid, null), string_agg(e.enumlabel, ',' order by e.enumsortorder)
    from pg_type t left join pg_enum e on e.enumtypid = t.oid
    where t.typnamespace in (select oid from ours) group by t.oid
    union all
    select 'publication', pubname, concat_ws(' ', puballtables, (
        select string_agg(prrelid::regclass::text, ',' order by prrelid) from pg_publication_rel
        where prpubid = p.oid))
    from pg_publication p
    order by 1, 2, 3
"""


def fingerprint(world: World) -> list[Any]:
    return world.connection.execute(FINGERPRINT.encode()).fetchall()


def use(world: World) -> None:
    """Each function does its work on this schema."""
    high, pinned, empty = world.tracked(priority="high"), world.tracked(), world.track(None)
    workspace = world.add(pinned)
    assert world.sync(high, pinned, p_dry_run=True)["changed"] == 2
    world.sync(high, pinned)
    assert world.row(high) == Row("high", False, 0, "high")
    assert world.row(pinned) == Row("high", True, 1)
    world.pin(pinned, "low")
    world.remove(pinned, workspace)
    world.sweep()
    assert world.row(pinned) == Row("low", False, 0, "low")
    world.resync(2)
    assert world.sweep()["changed"] == 0
    assert world.value("select priority::text from tracked_repositories where id = %s", empty) == "medium"
    world.pin(pinned, None)
    assert world.row(pinned) == Row("medium", False, 0)
    assert world.call("get_repository_priorities", [high])[str(high)]["priority"] == "high"
    assert world.call("explain_repository_priority", high)["correct"] is True
    assert world.call("workspace_priority_snapshot")["inversions"] == 0
    world.call("beat_workspace_priorities", high)
    world.call("rollback_workspace_priorities")
