"""The set of migrations that this version needs, and whether a database has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from priorityd.core.errors import ContractError

MIGRATION_SET: Final = 1
"""The number of this version's set of migrations; any change to one of them makes a new set."""

APPLY_MIGRATIONS: Final = "priorityd migrations --into supabase/migrations && supabase db push --linked"
"""What an operator types to apply this version's migrations."""

VERSION_FUNCTION: Final = "workspace_priority_schema_version"


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """The answer of `workspace_priority_schema_version`.

    `set` is the number that all applied units have reached, `works_from` the oldest set whose daemons can
    work with it, and `units` what is applied, such as "20250103001100 functions".
    """

    set: int
    works_from: int
    units: tuple[str, ...]

    def lacks(self, file_names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of these migrations that are not applied at all, because their line was left out."""
        applied = {unit.partition(" ")[0] for unit in self.units}
        return tuple(name for name in file_names if name.partition("_")[0] not in applied)


def demand_version(applied: SchemaVersion) -> None:
    """Raise `ContractError` if the set is too old for this version, or this version too old for the set."""
    if applied.set < MIGRATION_SET:
        raise ContractError(
            f"The database is at migration set {applied.set}, and this version needs set {MIGRATION_SET}: "
            f"run {APPLY_MIGRATIONS}, then start again."
        )
    if applied.works_from > MIGRATION_SET:
        raise ContractError(
            f"The database is at migration set {applied.set}, which works with daemons from set "
            f"{applied.works_from} on, but this one is of set {MIGRATION_SET}: upgrade priorityd."
        )


def missing_schema() -> ContractError:
    """The error for a database without our functions."""
    return ContractError(
        f"The database has no function {VERSION_FUNCTION}(): run {APPLY_MIGRATIONS}, then start again. "
        "If you have done that, Supabase's API may not have noticed yet: run NOTIFY pgrst, 'reload schema'."
    )
