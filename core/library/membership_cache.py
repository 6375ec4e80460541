"""A cache of look-ups by repository, invalidated by age and by change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Generic, TypeVar
from uuid import UUID

TTL_SECONDS: Final = 300.0
"""Five minutes: the longest a look-up may be stale if no change was heard."""
MAX_ENTRIES: Final = 100_000

Value = TypeVar("Value")


class MembershipCache(Generic[Value]):
    """Remembers a value per repository for `ttl_seconds`; the oldest go when it is full.

    A look-up that was under way when its repository changed must not be remembered: take `generation`
    before asking and hand it to `put`. Times are seconds of one monotonic clock.
    """

    def __init__(self, ttl_seconds: float = TTL_SECONDS, max_entries: int = MAX_ENTRIES) -> None:
        self._ttl_seconds = ttl_seconds
        self._max_entries = max_entries
        self._entries: OrderedDict[UUID, tuple[float, Value]] = OrderedDict()
        self.generation = 0

    def get(self, repository_id: UUID, now: float) -> Value | None:
        """The cached value, or None."""
        entry = self._entries.get(repository_id)
        if entry is None:
            return None
        if now >= entry[0]:
            del self._entries[repository_id]
            return None
        return entry[1]

    def get_all(self, repository_ids: Iterable[UUID], now: float) -> dict[UUID, Value]:
        """What is cached for these."""
        if not self._entries:
            return {}
        found = ((key, self.get(key, now)) for key in repository_ids)
        return {key: value for key, value in found if value is not None}

    def put(self, repository_id: UUID, value: Value, now: float, generation: int) -> None:
        """Cache a value that was asked for at `generation`; dropped if anything has changed since."""
        if generation != self.generation:
            return
        self._entries[repository_id] = (now + self._ttl_seconds, value)
        self._entries.move_to_end(repository_id)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def drop(self, repository_id: UUID) -> None:
        """A change for this repository arrived."""
        self.generation += 1
        self._entries.pop(repository_id, None)
