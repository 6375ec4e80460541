"""Migrations, privileges and policies that are missing, and a database that accepts no writes or too long."""

from __future__ import annotations

from tests.checks.keys import use_own_role
from tests.checks.situation import Act, Place, Situation, sql
from tests.support.repository import ROOT
from tests.support.servers import start_servers
from tests.support.standby import pair_of_servers

_AGAIN = "Apply the migrations again. Whatever is up to date stays as it is."
_APPLY_AGAIN = 'priorityd migrations --into "$dir"'
_PUSH = "priorityd migrations --into supabase/migrations && supabase db push"
_LACKS = "Grant the role what it lacks."


def _uninstall(place: Place) -> None:
    place.execute((ROOT / "migrations" / "rollback" / "uninstall.sql").read_text())


def _newer(place: Place) -> None:
    place.execute("alter function workspace_priority_schema_version() rename to as_it_was")
    place.execute(
        """create function workspace_priority_schema_version() returns jsonb language sql stable as
           $$ select public.as_it_was() || '{"set": 9, "works_from": 9}' $$;
           notify pgrst, 'reload schema'"""
    )


def _upgrade(place: Place) -> None:
    # As if by a newer priorityd, for which that set is the right one.
    place.execute("drop function workspace_priority_schema_version()")
    place.execute(
        "alter function as_it_was() rename to workspace_priority_schema_version;notify pgrst, 'reload schema'"
    )


def _hide(place: Place) -> None:
    use_own_role(place)
    place.set(PRIORITYD_GATEWAY_KEY=place.right["PRIORITYD_GATEWAY_KEY"])
    place.execute("create policy mine on workspace_repositories as restrictive using (is_pinned)")


def _forbid(place: Place) -> None:
    use_own_role(place)
    place.set(PRIORITYD_GATEWAY_KEY=place.right["PRIORITYD_GATEWAY_KEY"])
    place.execute(
        "create policy frozen on tracked_repositories as restrictive for update"
        " using (true) with check (false)"
    )


def _hold(place: Place) -> None:
    # The function's own patience is 10 s.
    place.execute(
        "alter function check_workspace_priorities() set lock_timeout = '0';"
        "alter function check_workspace_priorities() set statement_timeout = '300ms';"
        "notify pgrst, 'reload schema'"
    )
    holder = place.stack.database.connect(autocommit=False)
    holder.execute("lock table workspace_repositories in access exclusive mode")
    place.notes["holder"] = holder


def _let_go(place: Place) -> None:
    place.notes["holder"].rollback()


_FULL = """create function "full"() returns trigger language plpgsql as $$ begin
    raise exception using errcode = '53100', message = 'could not extend file: No space left'; end $$;
    create trigger "full" before update on tracked_repositories for each row execute function "full"()"""


async def _fail_over(place: Place) -> None:
    """The project's database is the standby of another from now on."""
    pair = place.open.enter_context(pair_of_servers())
    pair.demote()
    server = await place.open.enter_async_context(start_servers(pair.postgres.url()))
    place.notes["pair"] = pair
    place.set(SUPABASE_URL=server.url, SUPABASE_SERVICE_ROLE_KEY=server.service_role_key)


def _promote(place: Place) -> None:
    place.notes["pair"].promote()


def _without(unit: str) -> Act:
    """As if these units, by the pattern of their names, had never been applied."""
    return sql(
        f"""do $$ declare v_function text; begin
            for v_function in
                select p.oid::regprocedure::text
                from pg_proc p join priorityd.migrations m on p.proname = any (m.functions)
                where p.pronamespace = 'public'::regnamespace and m.unit like '{unit}'
            loop
                execute 'drop function ' || v_function;
            end loop;
            delete from priorityd.migrations where unit like '{unit}';
        end $$;
        notify pgrst, 'reload schema'"""
    )


SITUATIONS = [
    Situation(
        "no migration is applied",
        _uninstall,
        "key and functions",
        "The database has no function workspace_priority_schema_version()",
        76,
        "Apply the migrations.",
        _PUSH,
    ),
    Situation(
        "the migrations are older",
        sql("update priorityd.migrations set set_number = 0 where unit like '20250103000500%'"),
        "migrations",
        "The database is at migration set 0, and this version needs set 1",
        76,
        "Apply the migrations.",
        _PUSH,
    ),
    Situation(
        "the migrations are newer",
        _newer,
        "migrations",
        "which works with daemons from set 9 on",
        76,
        "Upgrade priorityd on this machine",
        "priorityd --version",
        fix=_upgrade,
    ),
    Situation(
        "a function is gone",
        sql("drop function sweep_workspace_priorities; notify pgrst, 'reload schema'"),
        "migrations",
        "but the set is incomplete: sweep_workspace_priorities() is missing",
        76,
        _AGAIN,
        _APPLY_AGAIN,
    ),
    Situation(
        "a required unit was not applied",
        _without("20250103000800 functions"),
        "migrations",
        "but the set is incomplete: 20250103000800 functions is missing",
        76,
        _AGAIN,
        _APPLY_AGAIN,
    ),
    Situation(
        "an optional part was half applied",
        _without("20250103001100 functions"),
        "migrations",
        "but the set is incomplete: 20250103001100 functions is missing",
        76,
        _AGAIN,
        _APPLY_AGAIN,
    ),
    Situation(
        "an optional part was left out",
        _without("20250103001100%"),
        "migrations",
        "without 20250103001100_add_priority_outbox.sql",
        0,
        "These features are off.",
        _APPLY_AGAIN,
        outcome="warning",
    ),
    Situation(
        "an internal function is gone, so a step fails",
        sql("drop function priorityd.missing_functions"),
        "key and functions",
        "function priorityd.missing_functions() does not exist (42883)",
        1,
        "apply the migrations again",
        _APPLY_AGAIN,
    ),
    Situation(
        "the function that describes the database is gone",
        sql("drop function check_workspace_priorities; notify pgrst, 'reload schema'"),
        "migrations",
        "but the set is incomplete: ",
        76,
        _AGAIN,
        _APPLY_AGAIN,
    ),
    Situation(
        "an index is gone",
        sql("drop index idx_tracked_repos_priority_drift"),
        "indexes",
        "missing or invalid: idx_tracked_repos_priority_drift",
        0,
        "without blocking reads or writes",
        "priorityd.missing_indexes(true)",
        outcome="warning",
    ),
    Situation(
        "the planner can't inline the definition of memberships",
        sql(
            """create or replace function priorityd.memberships()
               returns table (workspace_id uuid, repository_id uuid) language plpgsql stable as $$
               begin return query
                   select wr.workspace_id, wr.repository_id from workspace_repositories wr;
               end $$"""
        ),
        "memberships",
        "because the planner can't inline priorityd.memberships()",
        0,
        "Make it a single select in a SQL function that is STABLE",
        "pg_get_functiondef('priorityd.memberships()'::regprocedure)",
        fix=sql(
            """create or replace function priorityd.memberships()
               returns table (workspace_id uuid, repository_id uuid) language sql stable as $$
               select wr.workspace_id, wr.repository_id from public.workspace_repositories wr $$"""
        ),
        outcome="warning",
    ),
    Situation(
        "no privilege to read workspace_repositories",
        sql("revoke select on workspace_repositories from service_role"),
        "key and functions",
        "permission denied for table workspace_repositories",
        76,
        _LACKS,
        "grant select on public.workspace_repositories to service_role",
    ),
    Situation(
        "no privilege to update tracked_repositories",
        sql("revoke update on tracked_repositories from service_role"),
        "privileges",
        "the role service_role may not write tracked_repositories",
        76,
        _LACKS,
        "grant update (priority, is_workspace_repo, workspace_count, manual_priority)",
    ),
    Situation(
        "a privilege to update one column only",
        sql(
            "revoke update on tracked_repositories from service_role;"
            "grant update (priority) on tracked_repositories to service_role"
        ),
        "writes",
        "permission denied for table tracked_repositories (42501)",
        1,
        _LACKS,
        "update (priority, is_workspace_repo, workspace_count, manual_priority)",
    ),
    Situation(
        "no privilege to call a function",
        sql("revoke execute on function sweep_workspace_priorities from service_role"),
        "privileges",
        "lacks a privilege on function sweep_workspace_priorities(",
        76,
        _LACKS,
        "select priorityd.grant_access()",
    ),
    Situation(
        "no privilege to use the schema priorityd",
        sql("revoke usage on schema priorityd from service_role"),
        "key and functions",
        "permission denied for schema priorityd",
        76,
        _LACKS,
        "grant usage on schema priorityd to service_role",
    ),
    Situation(
        "a restrictive policy hides memberships",
        _hide,
        "role",
        "row level security may hide rows of workspace_repositories from the key's role, priorityd",
        1,
        "no restrictive one",
        "select * from pg_policies",
        fix=sql("drop policy mine on workspace_repositories"),
        makes_role=True,
    ),
    Situation(
        "a policy refuses every write",
        _forbid,
        "writes",
        "the cause is the restrictive policy frozen",
        1,
        "Change it so that the role may update every tracked row.",
        "select * from pg_policies where tablename = 'tracked_repositories'",
        fix=sql("drop policy frozen on tracked_repositories"),
        makes_role=True,
    ),
    Situation(
        "the database is blocked",
        _hold,
        "key and functions",
        "canceling statement due to statement timeout (57014)",
        69,
        "this command shows the open transactions and which block others",
        "pg_blocking_pids(pid)",
        fix=_let_go,
    ),
    Situation(
        "the database is a read-only standby",
        _fail_over,
        "key and functions",
        "(0A000); the database accepts no writes",
        69,
        "It is a standby, or it was made read-only",
        "pg_is_in_recovery()",
        fix=_promote,
    ),
    Situation(
        "the disk is full",
        sql(_FULL),
        "key and functions",
        "No space left (53100); the database accepts no writes",
        69,
        "which Supabase does when the disk is full",
        "default_transaction_read_only",
        fix=sql('drop trigger "full" on tracked_repositories'),
    ),
]
