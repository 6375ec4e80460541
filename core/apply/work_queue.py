"""The work queue: which repositories to look at, and when.

A key is a repository id. It is in at most one of these sets, with one exception:

- *dirty*: its row may be wrong; it is *due* at a certain time.
- *processing*: a worker has taken it. A change that arrives meanwhile makes it dirty again as well, and it
  runs once more after the worker is done.
- *parked*: its work failed permanently. It comes back with the next change, or when `unpark` is called.

Debounce: the first change of a quiet key is due at once. A change within the debounce window after the key
was taken waits until the window has passed without another, but at most `max_wait_seconds` after the first
waiting change. So a flapping repository costs about one run per `max_wait_seconds`, and its last state is
always seen.

Memory is bounded: above `capacity` dirty keys all of them are dropped, and the caller is told to sweep
instead; above as many parked keys, the longest parked. Nothing is lost: keys are hints, the database is the
truth, and a sweep finds what is wrong there.

Times are seconds of one monotonic clock, passed in as `now`.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING
from uuid import UUID

from priorityd.core.backoff import delay_after

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_RETRY_DELAY_SECONDS = 30.0
"""The longest a key waits after failed attempts, and so the longest its work is delayed after an outage."""


@dataclass(slots=True)
class WorkItem:
    """A key and why it waits.

    `committed_at` is the commit time of the oldest waiting change (by the database's clock), None if no
    change named the key. `attempts` counts failures since the last success.
    """

    key: UUID
    first_at: float
    due_at: float
    committed_at: datetime | None = None
    attempts: int = 0

    def merge(self, other: WorkItem) -> None:
        """Merge in another item for the same key."""
        self.first_at = min(self.first_at, other.first_at)
        known = [at for at in (self.committed_at, other.committed_at) if at is not None]
        self.committed_at = min(known, default=None)
        self.attempts = max(self.attempts, other.attempts)


class WorkQueue:
    """See the module's docstring. Not thread-safe: for one event loop."""

    def __init__(self, *, debounce_seconds: float, max_wait_seconds: float, capacity: int) -> None:
        self._debounce_seconds = debounce_seconds
        self._max_wait_seconds = max_wait_seconds
        self._capacity = capacity
        self._dirty: dict[UUID, WorkItem] = {}
        self._processing: dict[UUID, WorkItem] = {}
        self._parked: OrderedDict[UUID, str] = OrderedDict()
        # Due times with a tie-breaker; an entry counts only if it is still its key's due time.
        self._heap: list[tuple[float, int, UUID]] = []
        self._order = count()
        # When keys were last taken, oldest first; only those within the debounce window are kept.
        self._taken_at: OrderedDict[UUID, float] = OrderedDict()
        self._draining = False

    def add(self, key: UUID, now: float, *, committed_at: datetime | None = None) -> bool:
        """Note that `key` may be wrong. False when the queue overflowed: ask for a sweep."""
        self._parked.pop(key, None)
        item = self._dirty.get(key)
        if item is None:
            if len(self._dirty) >= self._capacity:
                self._drop_dirty()
                return False
            self._put(WorkItem(key, now, self._first_due(key, now), committed_at))
            return True
        item.merge(WorkItem(key, now, now, committed_at))
        if item.due_at > now and item.attempts == 0:
            self._reschedule(item, min(now + self._debounce_seconds, item.first_at + self._max_wait_seconds))
        return True

    def take(self, now: float, limit: int) -> list[WorkItem]:
        """Move up to `limit` due keys to *processing* and return them."""
        self._forget_quiet(now)
        taken: list[WorkItem] = []
        while len(taken) < limit and (item := self._next_due(now)) is not None:
            heapq.heappop(self._heap)
            del self._dirty[item.key]
            self._processing[item.key] = item
            self._taken_at[item.key] = now
            self._taken_at.move_to_end(item.key)
            taken.append(item)
        return taken

    def done(self, items: Iterable[WorkItem], now: float) -> None:
        """The work for these succeeded; those that changed meanwhile become due again."""
        for item in items:
            if self._processing.pop(item.key, None) is not None:
                self._wake(item.key, now)

    def retry(
        self,
        items: Iterable[WorkItem],
        now: float,
        delay_seconds: float,
        *,
        least_seconds: float = 0.0,
        longest_seconds: float = MAX_RETRY_DELAY_SECONDS,
    ) -> None:
        """The work for these failed for now: due again after the delay, doubled with each attempt.

        `least_seconds` is the wait that the server asked for, `longest_seconds` the limit of the doubling.
        """
        for item in items:
            if self._processing.pop(item.key, None) is None:
                continue
            item.attempts += 1
            delay = delay_after(item.attempts, delay_seconds, longest_seconds)
            self._put_back(item, now + max(delay, least_seconds))

    def park(self, item: WorkItem, reason: str) -> None:
        """The work for this key failed permanently. A change that arrived meanwhile revives it at once."""
        self._processing.pop(item.key, None)
        waiting = self._dirty.get(item.key)
        if waiting is None:
            self._parked[item.key] = reason
            if len(self._parked) > self._capacity:
                self._parked.popitem(last=False)
        else:
            self._reschedule(waiting, waiting.due_at)

    def unpark(self, now: float, limit: int) -> int:
        """Give up to `limit` parked keys, longest parked first, another chance."""
        chosen = list(self._parked)[:limit]
        for key in chosen:
            del self._parked[key]
            if key not in self._dirty and len(self._dirty) < self._capacity:
                self._put(WorkItem(key, now, now))
        return len(chosen)

    def drain(self, now: float) -> None:
        """From now on nothing waits for a debounce window or a retry: everything is due at once."""
        self._draining = True
        for item in self._dirty.values():
            self._reschedule(item, min(item.due_at, now))

    def next_due_at(self) -> float | None:
        """When the next key is due, or None when none is waiting (other than those being processed)."""
        self._skip_stale()
        return self._heap[0][0] if self._heap else None

    @property
    def waiting(self) -> int:
        """Keys not taken yet, due or not."""
        return len(self._dirty)

    @property
    def pending(self) -> int:
        """Keys whose work is not done: dirty or processing."""
        return len(self._dirty.keys() | self._processing.keys())

    @property
    def parked_count(self) -> int:
        """How many keys are parked."""
        return len(self._parked)

    @property
    def parked(self) -> dict[UUID, str]:
        """Parked keys with the reason of each, longest parked first."""
        return dict(self._parked)

    def oldest_pending_seconds(self, now: float) -> float:
        """How long the longest waiting key has been waiting; 0 when none is."""
        waiting = (*self._dirty.values(), *self._processing.values())
        oldest = min((item.first_at for item in waiting), default=now)
        return max(0.0, now - oldest)

    def _first_due(self, key: UUID, now: float) -> float:
        taken_at = self._taken_at.get(key)
        quiet = taken_at is None or now - taken_at >= self._debounce_seconds
        return now if quiet or self._draining else now + self._debounce_seconds

    def _put(self, item: WorkItem) -> None:
        self._dirty[item.key] = item
        self._push(item)

    def _put_back(self, item: WorkItem, due_at: float) -> None:
        newer = self._dirty.get(item.key)
        if newer is not None:
            newer.merge(item)
            self._reschedule(newer, due_at)
            return
        item.due_at = due_at
        self._put(item)

    def _reschedule(self, item: WorkItem, due_at: float) -> None:
        item.due_at = due_at
        self._push(item)

    def _push(self, item: WorkItem) -> None:
        # A key that is being processed gets its entry when that is over.
        if item.key not in self._processing:
            heapq.heappush(self._heap, (item.due_at, next(self._order), item.key))
            if len(self._heap) > 2 * len(self._dirty) + 1000:
                self._rebuild()

    def _wake(self, key: UUID, now: float) -> None:
        item = self._dirty.get(key)
        if item is not None:
            self._reschedule(item, max(item.due_at, now) if not self._draining else now)

    def _next_due(self, now: float) -> WorkItem | None:
        self._skip_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        return self._dirty[self._heap[0][2]]

    def _skip_stale(self) -> None:
        while self._heap and not self._is_current(self._heap[0]):
            heapq.heappop(self._heap)

    def _is_current(self, entry: tuple[float, int, UUID]) -> bool:
        due_at, _, key = entry
        item = self._dirty.get(key)
        return item is not None and item.due_at == due_at and key not in self._processing

    def _rebuild(self) -> None:
        self._heap = [
            (item.due_at, next(self._order), item.key)
            for item in self._dirty.values()
            if item.key not in self._processing
        ]
        heapq.heapify(self._heap)

    def _drop_dirty(self) -> None:
        self._dirty.clear()
        self._heap.clear()

    def _forget_quiet(self, now: float) -> None:
        while self._taken_at:
            key, taken_at = next(iter(self._taken_at.items()))
            if now - taken_at < self._debounce_seconds:
                return
            del self._taken_at[key]
