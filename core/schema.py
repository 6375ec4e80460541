"""Which migrations this version needs, and which it can work with.

A schema is older than this version if it lacks a migration that this version calls functions of: refused. A
newer one is compatible, always. That is a promise of the migrations and not something to be asked of the
database: none of them takes away or changes what a released daemon calls or reads (tests/upgrade holds them
to it). What must become different gets a new name, and the old one goes when no released daemon knows it any
more. So the order of an upgrade is the migrations first, then the daemons, one after the other.
"""

from __future__ import annotations

from typing import Final

from core.errors import ContractError

REQUIRED_MIGRATION: Final = "20250103000600_add_workspace_priority_job_telemetry"
"""The newest migration whose functions this version calls; newer ones are compatible."""

VERSION_FUNCTION: Final = "workspace_priority_schema_version"


def version_of(migration: str) -> str:
    """The time stamp that a migration's name begins with: `YYYYMMDDHHMMSS`."""
    return migration.partition("_")[0]


def demand_version(applied: str) -> None:
    """Raise `ContractError` naming the migration that is missing if the schema is too old."""
    if applied < version_of(REQUIRED_MIGRATION):
        raise ContractError(
            f"The database is at migration {applied}, too old for this version: "
            f"apply the migrations up to {REQUIRED_MIGRATION}.sql (supabase db push), then start again."
        )


def missing_schema() -> ContractError:
    """The error for a database that does not know our functions at all."""
    return ContractError(
        f"The database has no function {VERSION_FUNCTION}(): apply the migrations up to "
        f"{REQUIRED_MIGRATION}.sql (supabase db push), then start again. If they are applied, "
        "Supabase's API may not have noticed yet: run NOTIFY pgrst, 'reload schema'."
    )
