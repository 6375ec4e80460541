"""The database of a chaos run: the sandbox's, in one of its worlds, and three tables of the harness's own.

`chaos_manual` has the manual priority that each tracked row must have, written in the transaction that set
it; `by_application`: it was set by the application itself, not by our function. Entries of deleted rows stay,
since their audit entries stay as well. A row cannot be written while `chaos_poison` has its repository.
`chaos_changes` records every real change of a priority, flag or manual priority, by a trigger; the audit
trail is compared with it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg import AsyncConnection

from priorityd.daemon.sandbox.seed import prepare_database
from priorityd.daemon.sandbox.worlds import PLAIN

_RETRY_SECONDS = 0.05
_OWN_TABLES = """
create table chaos_manual (
    tracked_id uuid primary key,
    priority text,
    by_application boolean not null
);
create table chaos_poison (repository_id uuid primary key);
create function chaos_poison() returns trigger
language plpgsql security definer set search_path = public as $$
begin
    if exists (select from chaos_poison p where p.repository_id = new.repository_id) then
        raise exception 'poisoned' using errcode = 'check_violation';
    end if;
    return new;
end $$;
create trigger chaos_poison before update on tracked_repositories
for each row execute function chaos_poison();
create table chaos_changes (
    tracked_id uuid, old_priority text, old_flag boolean, old_manual text,
    new_priority text, new_flag boolean, new_manual text
);
create function chaos_changes() returns trigger
language plpgsql security definer set search_path = public as $$
begin
    insert into chaos_changes values (
        new.id, old.priority, coalesce(old.is_workspace_repo, false), old.manual_priority,
        new.priority, coalesce(new.is_workspace_repo, false), new.manual_priority
    );
    return null;
end $$;
create trigger chaos_changes after update on tracked_repositories
for each row when (
    (old.priority, coalesce(old.is_workspace_repo, false), old.manual_priority)
    is distinct from (new.priority, coalesce(new.is_workspace_repo, false), new.manual_priority)
) execute function chaos_changes();
"""


def prepare(url: str, world: str = PLAIN) -> None:
    """Make a fresh database ready for a run."""
    prepare_database(url, world=world, with_demo_data=False, step=lambda _: None)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_OWN_TABLES)


async def connect(url: str) -> AsyncConnection[Any]:
    """A connection with short time-outs."""
    # Time-outs set by statements could fail or be cancelled, and leave it open.
    options = "-c lock_timeout=500ms -c statement_timeout=10s"
    return await AsyncConnection.connect(url, autocommit=True, connect_timeout=5, options=options)


async def insist(url: str, statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
    """Execute a repeatable statement, however often the database is away; returns its rows."""
    while True:
        try:
            async with await connect(url) as connection:
                cursor = await connection.execute(statement, parameters)
                return await cursor.fetchall() if cursor.description else []
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
            await asyncio.sleep(_RETRY_SECONDS)
