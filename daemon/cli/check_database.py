"""What `priorityd check` says about the database, from one answer of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from priorityd.core.database.schema import APPLY_MIGRATIONS, demand_version
from priorityd.core.errors import ContractError, ExitCode
from priorityd.daemon.cli.finding import Finding, from_error, psql
from priorityd.daemon.database.rows import DatabaseCheck
from priorityd.daemon.migration_files import migration_files

_MEMBERSHIPS: Final = "select pg_get_functiondef('priorityd.memberships()'::regprocedure)"
_MISSING_INDEXES: Final = "select unnest(statements) from priorityd.missing_indexes(true)"


def database_findings(database: DatabaseCheck) -> Iterator[Finding]:
    """One finding for each thing that the database has to have."""
    yield _role(database)
    yield _migrations(database)
    yield _memberships(database)
    yield _indexes(database)
    yield _publication(database)
    yield _deletes(database)


def _role(database: DatabaseCheck) -> Finding:
    step = "role"
    if database.hidden:
        return Finding(
            step,
            "failed",
            f"row level security may hide rows of {', '.join(database.hidden)} from the key's role, "
            f"{database.role}: nothing is written",
            "Use the service_role key; or give the role policies that let every row through, and no "
            "restrictive one.",
            psql("select * from pg_policies where schemaname = 'public'"),
            ExitCode.FAILED,
        )
    return Finding(step, "ok", f"the key's role is {database.role}, which sees every row")


def _migrations(database: DatabaseCheck) -> Finding:
    step = "migrations"
    try:
        demand_version(database.schema_version)
    except ContractError as error:
        return from_error(step, error, "Apply the migrations.", APPLY_MIGRATIONS)
    text = f"the database is at set {database.schema_version.set}"
    left_out = database.schema_version.lacks(tuple(file.name for file in migration_files()))
    if left_out:
        return Finding(
            step,
            "warning",
            f"{text}, without {', '.join(left_out)}",
            "What these are for is off. To have it, apply them.",
            APPLY_MIGRATIONS,
        )
    return Finding(step, "ok", text)


def _memberships(database: DatabaseCheck) -> Finding:
    step, found = "memberships", database.memberships
    whose = "as an operator has defined them" if found.own else "as installed"
    text = (
        f"{found.memberships:,} count, {whose}; "
        f"asking takes {found.one_ms:.1f} ms for one repository, {found.all_ms:.0f} ms for all"
    )
    if found.inlined:
        return Finding(step, "ok", text)
    return Finding(
        step,
        "warning",
        f"{text}, because the planner can't see through priorityd.memberships()",
        "Make it one select in a SQL function that is STABLE, without SET and SECURITY DEFINER.",
        psql(_MEMBERSHIPS),
    )


def _indexes(database: DatabaseCheck) -> Finding:
    step = "indexes"
    if not database.missing_indexes:
        return Finding(step, "ok", "every index is there")
    return Finding(
        step,
        "warning",
        f"missing or invalid: {', '.join(database.missing_indexes)}",
        "Run the statements that this prints, outside a transaction; they make nobody wait.",
        psql(_MISSING_INDEXES),
    )


def _publication(database: DatabaseCheck) -> Finding:
    publication = database.publication
    if not publication.exists:
        return Finding(
            "publication",
            "failed",
            "there is no publication supabase_realtime, so nothing is streamed",
            "Create it with the tables that are followed.",
            psql(f"create publication supabase_realtime for table {_tables(publication.missing)}"),
            ExitCode.FAILED,
        )
    if publication.missing:
        tables = _tables(publication.missing)
        return Finding(
            "publication",
            "failed",
            f"not in the publication supabase_realtime: {tables}",
            "Add what is missing.",
            psql(f"alter publication supabase_realtime add table {tables}"),
            ExitCode.FAILED,
        )
    return Finding("publication", "ok", f"{', '.join(publication.tables)} are published")


def _tables(names: tuple[str, ...]) -> str:
    return ", ".join(f"public.{name}" for name in names)


def _deletes(database: DatabaseCheck) -> Finding:
    table = database.workspace_repositories
    security = "on" if table.row_level_security else "off"
    facts = f"row level security {security}, replica identity {table.replica_identity}"
    if table.delete_names_repository:
        return Finding("removals", "ok", f"{facts}: a removal names its repository")
    return Finding(
        "removals",
        "ok",
        f"{facts}: a removal does not name its repository, so each one asks for a sweep, which finds it",
    )
