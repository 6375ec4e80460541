"""What `priorityd check` says about the database, from one answer of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from priorityd.core.database.schema import APPLY_MIGRATIONS, demand_version
from priorityd.core.errors import ContractError, ExitCode
from priorityd.daemon.cli.finding import Finding, Outcome, from_error, psql
from priorityd.daemon.database.rows import DatabaseCheck, PublicationCheck
from priorityd.daemon.migration_files import migration_files

_MEMBERSHIPS: Final = "select pg_get_functiondef('priorityd.memberships()'::regprocedure)"
_MISSING_INDEXES: Final = "select unnest(statements) from priorityd.missing_indexes(true)"


def database_findings(database: DatabaseCheck) -> Iterator[Finding]:
    """One finding for each thing that the database has to have."""
    yield _role(database)
    yield _migrations(database)
    yield _memberships(database)
    yield _indexes(database)
    yield from _publication(database.publication)
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


def _publication(publication: PublicationCheck) -> Iterator[Finding]:
    """What keeps changes from coming, and nothing that would make the application's writes fail."""
    findings = [
        *_unpublished(publication),
        *(_unidentified(publication, table) for table in publication.unidentified),
        *(_flawed(publication, table) for table in sorted(publication.flaws)),
        *(_partitioned(table) for table in publication.tables if table in publication.partitioned),
    ]
    yield from findings or [_found("ok", f"{', '.join(publication.tables)} are published")]


def _found(outcome: Outcome, text: str, remedy: str = "", command: str = "") -> Finding:
    code = ExitCode.FAILED if outcome == "failed" else ExitCode.DONE
    return Finding("publication", outcome, text, remedy, command, code)


def _unpublished(publication: PublicationCheck) -> Iterator[Finding]:
    tables = ", ".join(
        f"public.{name}" for name in publication.missing if name not in publication.unidentified
    )
    if not publication.exists:
        yield _found(
            "failed",
            "there is no publication supabase_realtime, so nothing is streamed",
            "Create it with the tables that are followed.",
            psql("create publication supabase_realtime" + (f" for table {tables}" if tables else "")),
        )
    elif tables:
        yield _found(
            "failed",
            f"not in the publication supabase_realtime: {tables}",
            f"Add what is missing, as {publication.owner}, to whom it belongs.",
            psql(f"alter publication supabase_realtime add table {tables}"),
        )


def _unidentified(publication: PublicationCheck, table: str) -> Finding:
    partitioned = table in publication.partitioned
    effect = "it is not published, or its updates and deletes would fail"
    if table not in publication.missing:
        effect = "as it is published, its updates and deletes fail"
    return _found(
        "failed",
        f"{table} has no primary key and no replica identity{' in each partition' if partitioned else ''}; "
        f"{effect}",
        "Give it a primary key, or at least a replica identity, and then apply the migrations again.",
        "" if partitioned else psql(f"alter table public.{table} replica identity full"),
    )


def _flawed(publication: PublicationCheck, table: str) -> Finding:
    return _found(
        "warning" if table in publication.tables else "failed",
        f"of {table} not all comes through supabase_realtime: {'; '.join(publication.flaws[table])}",
        "What does not come is found by sweeps. Before you change a publication, see that each of its tables "
        "has a primary key or a replica identity.",
        psql("select * from pg_publication_tables where pubname = 'supabase_realtime'"),
    )


def _partitioned(table: str) -> Finding:
    # eulerto/wal2json, issue 259: "This is not supported."
    return _found(
        "warning",
        f"{table} is partitioned, and wal2json, by which Realtime reads, names its partitions instead: "
        "its changes are found by sweeps",
        "If that is too slow, shorten PRIORITYD_SWEEP_INTERVAL_SECONDS.",
    )


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
