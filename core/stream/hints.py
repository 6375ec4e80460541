"""Which repositories a Realtime change is about.

A change is a hint: it names keys whose rows may be wrong now, and nothing in it is used as data. These facts
about Supabase Realtime's `postgres_changes` shape the code:

- With row level security on, a DELETE carries only primary-key columns, even for service_role. So it does not
  say which repository left its workspace, and a sweep must find it. The same is true of an UPDATE's old row.
- Rows above 1 MiB arrive without most of their values, and an unchanged TOAST column is absent.
- `commit_timestamp` is from the database's clock, in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

WORKSPACE_REPOSITORIES: Final = "workspace_repositories"
TRACKED_REPOSITORIES: Final = "tracked_repositories"
HEARTBEATS: Final = "workspace_priority_heartbeats"
TABLES: Final = (WORKSPACE_REPOSITORIES, TRACKED_REPOSITORIES, HEARTBEATS)

OPERATIONS: Final = ("INSERT", "UPDATE", "DELETE")


class MalformedChangeError(ValueError):
    """A change frame that does not have the documented shape."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What may be wrong because of one change.

    `needs_sweep`: the change concerns a repository that it does not name. `beat_at` is set for the daemon's
    own heartbeat row. `membership_id` is the key of the changed membership, `held_repository_id` its
    repository after the change.
    """

    table: str
    operation: str
    committed_at: datetime
    repository_ids: tuple[UUID, ...] = ()
    needs_sweep: bool = False
    beat_at: datetime | None = None
    membership_id: str | None = None
    held_repository_id: UUID | None = None


def read_change(data: Mapping[str, object]) -> Hint:
    """The hint in the `data` of a change frame.

    Raises `MalformedChangeError` when it has no known table, operation or commit time.
    """
    table, operation = data.get("table"), data.get("type")
    if not isinstance(table, str) or table not in TABLES:
        raise MalformedChangeError(f"unexpected table {table!r:.80}")
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise MalformedChangeError(f"unexpected operation {operation!r:.80}")
    # The client passes an enum member, which equals its value but would be another label of a metric.
    operation = OPERATIONS[OPERATIONS.index(operation)]
    committed_at = _time(data.get("commit_timestamp"))
    if committed_at is None:
        raise MalformedChangeError(f"no commit_timestamp in a change of {table}")
    record, old_record = _record(data, "record"), _record(data, "old_record")
    if table == HEARTBEATS:
        return Hint(table, operation, committed_at, beat_at=_time(record.get("beat_at")))
    if table == TRACKED_REPOSITORIES:
        repository_id = _uuid(record.get("repository_id"))
        return Hint(table, operation, committed_at, (repository_id,) if repository_id else ())
    return _membership_hint(operation, committed_at, record, old_record)


def _membership_hint(
    operation: str, committed_at: datetime, record: Mapping[str, object], old_record: Mapping[str, object]
) -> Hint:
    sides = {"INSERT": (record,), "UPDATE": (record, old_record), "DELETE": (old_record,)}[operation]
    named = [_uuid(side.get("repository_id")) for side in sides]
    known = tuple(dict.fromkeys(repository_id for repository_id in named if repository_id is not None))
    row_id = (old_record if operation == "DELETE" else record).get("id")
    return Hint(
        WORKSPACE_REPOSITORIES,
        operation,
        committed_at,
        repository_ids=known,
        needs_sweep=None in named,
        membership_id=str(row_id) if isinstance(row_id, str | int) else None,
        held_repository_id=None if operation == "DELETE" else named[0],
    )


def _record(data: Mapping[str, object], side: str) -> Mapping[str, object]:
    value = data.get(side)
    return value if isinstance(value, Mapping) else {}


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None
