"""The outbox in the database: claiming changes, settling them, and trimming the record they are on.

All of it may be repeated. Errors leave as those of the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from priorityd.core.outbox.announcements import RecordedChange
from priorityd.daemon.database.store import Store


@dataclass(frozen=True, slots=True)
class Opening:
    """The answer of `open_priority_outbox`. `from_now_on`: what was on record before is no news."""

    database_id: UUID
    announce_after: int
    from_now_on: bool


@dataclass(frozen=True, slots=True)
class ClaimedChanges:
    """The answer of `claim_priority_changes`, the oldest change first."""

    database_id: UUID
    changes: tuple[RecordedChange, ...]


@dataclass(frozen=True, slots=True)
class Depth:
    """The answer of `priority_outbox_depth`: what waits, for how long, and what was given up."""

    pending: int
    oldest_seconds: float
    abandoned: int
    dispatcher_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class TrimmedPage:
    """The answer of `trim_priority_changes`; `next_after` is None when what follows is young."""

    trimmed: int
    next_after: int | None


_OPENING: Final = TypeAdapter(Opening)
_CLAIMED: Final = TypeAdapter(ClaimedChanges)
_DEPTH: Final = TypeAdapter(Depth)
_TRIMMED: Final = TypeAdapter(TrimmedPage)
_COUNTED: Final = TypeAdapter(dict[str, int])


class Outbox:
    """The functions of the outbox, one method each; `daemon_id` is whose the claims are."""

    def __init__(self, store: Store, daemon_id: UUID) -> None:
        self._store = store
        self._daemon_id = str(daemon_id)

    async def open(self) -> Opening:
        """Begin to dispatch, or go on where the last dispatcher stopped."""
        return await self._store.call(_OPENING, "open_priority_outbox")

    async def claim(self, limit: int, seconds: float) -> ClaimedChanges:
        """The oldest pending changes that nobody else is busy with; they are ours for `seconds`."""
        return await self._store.call(
            _CLAIMED,
            "claim_priority_changes",
            p_daemon_id=self._daemon_id,
            p_limit=limit,
            p_claim_seconds=seconds,
        )

    async def mark_dispatched(self, ids: Sequence[int]) -> None:
        """These are announced."""
        await self._store.call(_COUNTED, "mark_priority_changes_dispatched", p_ids=list(ids))

    async def abandon(self, reasons: Mapping[int, str]) -> None:
        """These will never be accepted, and why."""
        await self._store.call(
            _COUNTED, "abandon_priority_changes", p_ids=list(reasons), p_reasons=list(reasons.values())
        )

    async def put_back(self, ids: Sequence[int], error: str | None, delay_seconds: float) -> None:
        """These could not be sent for now."""
        await self._store.call(
            _COUNTED,
            "return_priority_changes",
            p_daemon_id=self._daemon_id,
            p_ids=list(ids),
            p_error=error,
            p_delay_seconds=delay_seconds,
        )

    async def depth(self) -> Depth:
        """How much waits."""
        return await self._store.call(_DEPTH, "priority_outbox_depth")

    async def trim(self, keep_days: int, after: int, limit: int) -> TrimmedPage:
        """Take what is older off the record, looking at `limit` changes after the key `after`."""
        return await self._store.call(
            _TRIMMED, "trim_priority_changes", p_keep_days=keep_days, p_after=after, p_limit=limit
        )
