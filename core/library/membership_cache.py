"""A cache of look-ups by repository, invalidated by age and by changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Generic, TypeVar
from uuid import UUID

TTL_SECONDS: Final = 300.0
"""Five minutes: how stale a look-up may be if its change was not received."""
MAX_ENTRIES: Final = 100_000

Value = TypeVar("Value")


class MembershipCache(Generic[Value]):
    """Keeps a value per repository for `ttl_seconds`, and drops the oldest when it is full.

    A look-up during which the repository changed must not be cached: read `generation` before the look-up and
    pass it to `put`. Times are seconds of a monotonic clock.
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
        """The values cached for these repositories."""
        if not self._entries:
            return {}
        found = ((key, self.get(key, now)) for key in repository_ids)
        return {key: value for key, value in found if value is not None}

    def put(self, repository_id: UUID, value: Value, now: float, generation: int) -> None:
        """Cache a value looked up at `generation`, unless anything has changed since."""
        if generation != self.generation:
            return
        self._entries[repository_id] = (now + self._ttl_seconds, value)
        self._entries.move_to_end(repository_id)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def drop(self, repository_id: UUID) -> None:
        """Drop a repository, because it has changed."""
        self.generation += 1
        self._entries.pop(repository_id, None)
