"""The outbox in the database: claiming changes, settling them, and trimming the record.

Every call may be repeated. Errors are those of the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from priorityd.core.outbox.announcements import RecordedChange
from priorityd.daemon.database.store import Store


@dataclass(frozen=True, slots=True)
class Opening:
    """The answer of `open_priority_outbox`. `from_now_on`: changes recorded earlier are skipped."""

    database_id: UUID
    from_now_on: bool


@dataclass(frozen=True, slots=True)
class ClaimedChanges:
    """The answer of `claim_priority_changes`, the oldest change first."""

    database_id: UUID
    changes: tuple[RecordedChange, ...]


@dataclass(frozen=True, slots=True)
class Depth:
    """The answer of `priority_outbox_depth`: what waits, for how long, and what was abandoned."""

    pending: int
    oldest_seconds: float
    abandoned: int


@dataclass(frozen=True, slots=True)
class TrimmedPage:
    """The answer of `trim_priority_changes`; `next_after` is None when only recent changes are left."""

    trimmed: int
    next_after: int | None


class Outbox:
    """The functions of the outbox, one method each; `daemon_id` owns the claims."""

    def __init__(self, store: Store, daemon_id: UUID) -> None:
        self._store = store
        self._daemon_id = str(daemon_id)

    async def open(self) -> Opening:
        """Start dispatching, or continue where the last dispatcher stopped."""
        return await self._store.call(Opening, "open_priority_outbox")

    async def claim(self, limit: int, seconds: float) -> ClaimedChanges:
        """Claim the oldest pending changes that are not claimed, for `seconds`."""
        return await self._store.call(
            ClaimedChanges,
            "claim_priority_changes",
            p_daemon_id=self._daemon_id,
            p_limit=limit,
            p_claim_seconds=seconds,
        )

    async def mark_dispatched(self, ids: Sequence[int]) -> None:
        """Mark these as announced."""
        await self._store.call(dict[str, int], "mark_priority_changes_dispatched", p_ids=list(ids))

    async def abandon(self, reasons: Mapping[int, str]) -> None:
        """Abandon these, which will never be accepted, with the reason for each."""
        await self._store.call(
            dict[str, int], "abandon_priority_changes", p_ids=list(reasons), p_reasons=list(reasons.values())
        )

    async def put_back(self, ids: Sequence[int], error: str | None, delay_seconds: float) -> None:
        """Put back these, which could not be sent for now; they are due again after the delay."""
        await self._store.call(
            dict[str, int],
            "return_priority_changes",
            p_daemon_id=self._daemon_id,
            p_ids=list(ids),
            p_error=error,
            p_delay_seconds=delay_seconds,
        )

    async def depth(self) -> Depth:
        """How many changes wait, and for how long."""
        return await self._store.call(Depth, "priority_outbox_depth")

    async def trim(self, keep_days: int, after: int, limit: int) -> TrimmedPage:
        """Delete changes older than `keep_days`, among the next `limit` ones after the key `after`."""
        return await self._store.call(
            TrimmedPage, "trim_priority_changes", p_keep_days=keep_days, p_after=after, p_limit=limit
        )
