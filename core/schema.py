"""Which migrations this version needs."""

from __future__ import annotations

from typing import Final

from core.errors import ContractError

REQUIRED_MIGRATION: Final = "20250103001000_add_workspace_priority_short_waits"
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
