"""The part of `priorityd check` about the database, based on one answer from it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Final

from priorityd.core.database.schema import APPLY_MIGRATIONS, MIGRATION_SET, SchemaVersion
from priorityd.core.errors import ContractError, ExitCode, PriorityError
from priorityd.daemon.cli.check.guard import APPLY, APPLY_AGAIN, from_call
from priorityd.daemon.cli.check.publication import publication_findings
from priorityd.daemon.cli.check.writes import writes_findings
from priorityd.daemon.cli.finding import Finding, from_error, psql
from priorityd.daemon.cli.output import listed
from priorityd.daemon.database.rows import DatabaseCheck
from priorityd.daemon.database.store import Store
from priorityd.daemon.migration_files import migration_files

_MEMBERSHIPS: Final = "select pg_get_functiondef('priorityd.memberships()'::regprocedure)"
_MISSING_INDEXES: Final = "select unnest(statements) from priorityd.missing_indexes(true)"
_UNIT: Final = re.compile(r"start_unit\(\s*'([^']+)'")
_FIRST_OPTIONAL: Final = "20250103001100"
"""Outbox, ordered jobs and job telemetry may be left out; the files before them are required."""
_AGAIN: Final = "Apply the migrations again. Whatever is up to date stays as it is."


def too_old_or_new(version: SchemaVersion, error: ContractError) -> Finding:
    """The finding if the database and this version are not compatible."""
    if version.works_from > MIGRATION_SET:
        remedy = "Upgrade priorityd on this machine, the way it was installed: see deploy/upgrade.md."
        return from_error("migrations", error, remedy, "priorityd --version")
    return from_error("migrations", error, APPLY, APPLY_MIGRATIONS)


def in_part(version: SchemaVersion, error: PriorityError) -> Finding:
    """The finding if the function that describes the database is missing, though others are there."""
    text = f"the database is at set {version.set}, but the set is incomplete: {error}"
    return Finding("migrations", "failed", text, _AGAIN, APPLY_AGAIN, ExitCode.SCHEMA)


def migrations_finding(database: DatabaseCheck) -> Finding:
    """Whether the set is complete."""
    step, version = "migrations", database.schema_version
    text = f"the database is at set {version.set}"
    left_out = version.lacks(tuple(file.name for file in migration_files()))
    missing = [*_missing_units(version, left_out), *(f"{name}()" for name in database.missing_functions)]
    if missing:
        return Finding(
            step,
            "failed",
            f"{text}, but the set is incomplete: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing",
            _AGAIN,
            APPLY_AGAIN,
            ExitCode.SCHEMA,
        )
    if left_out:
        remedy = f"These features are off. To switch them on, {_AGAIN[:1].lower()}{_AGAIN[1:]}"
        return Finding(step, "warning", f"{text}, without {', '.join(left_out)}", remedy, APPLY_AGAIN)
    return Finding(step, "ok", text)


def _missing_units(version: SchemaVersion, left_out: tuple[str, ...]) -> Iterator[str]:
    """The missing units of files that are required, or were applied in part."""
    for file in migration_files():
        if file.name in left_out and file.name >= _FIRST_OPTIONAL:
            continue
        units = _UNIT.findall(file.read_text(encoding="utf-8"))
        yield from (unit for unit in units if unit not in version.units)


async def database_findings(store: Store, database: DatabaseCheck) -> AsyncIterator[Finding]:
    """One finding for each thing that the database must have."""
    yield _role(database)
    if not database.hidden:
        yield await _privileges(store, database)
    for finding in catalog_findings(database):
        yield finding


def catalog_findings(database: DatabaseCheck) -> Iterator[Finding]:
    """The findings that follow from that one answer."""
    yield _memberships(database)
    yield _indexes(database)
    yield from writes_findings(database)
    yield from publication_findings(database.publication)
    yield _deletes(database)


async def _privileges(store: Store, database: DatabaseCheck) -> Finding:
    step = "privileges"
    try:
        await store.demand_rights()
    except PriorityError as error:
        return from_call(step, error)
    if database.ungranted:
        return Finding(
            step,
            "failed",
            f"the role {database.role} lacks a privilege on {listed(database.ungranted)}",
            "Grant the role what it lacks.",
            psql(f"grant usage on schema priorityd to {database.role}; select priorityd.grant_access()"),
            ExitCode.SCHEMA,
        )
    return Finding(step, "ok", "the key's role has all the privileges that it needs")


def _role(database: DatabaseCheck) -> Finding:
    step = "role"
    if database.hidden:
        return Finding(
            step,
            "failed",
            f"row level security may hide rows of {', '.join(database.hidden)} from the key's role, "
            f"{database.role}: nothing is written",
            "Use the service_role key, or give the role policies that let every row through, and no "
            "restrictive one. This command lists them.",
            psql("select * from pg_policies where schemaname = 'public'"),
            ExitCode.FAILED,
        )
    return Finding(step, "ok", f"the key's role is {database.role}, which sees every row")


def _memberships(database: DatabaseCheck) -> Finding:
    step, found = "memberships", database.memberships
    whose = "by your own definition" if found.own else "by the installed definition"
    text = (
        f"{found.memberships:,} count, {whose}; "
        f"a query takes {found.one_ms:.1f} ms for one repository, {found.all_ms:.0f} ms for all"
    )
    if found.inlined:
        return Finding(step, "ok", text)
    return Finding(
        step,
        "warning",
        f"{text}, because the planner can't inline priorityd.memberships()",
        "Make it a single select in a SQL function that is STABLE and has neither SET nor SECURITY DEFINER. "
        "This command shows it.",
        psql(_MEMBERSHIPS),
    )


def _indexes(database: DatabaseCheck) -> Finding:
    step = "indexes"
    if not database.missing_indexes:
        return Finding(step, "ok", "all indexes exist")
    return Finding(
        step,
        "warning",
        f"missing or invalid: {', '.join(database.missing_indexes)}",
        "This command creates them without blocking reads or writes.",
        f'{psql(_MISSING_INDEXES)} -At | psql "$DATABASE_URL"',
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
        f"{facts}: a removal does not name its repository, so each requests a sweep, which finds it",
    )
