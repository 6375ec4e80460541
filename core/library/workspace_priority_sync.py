"""Priorities as a library: what an application calls instead of the TypeScript service.

Every write goes through one SQL function that computes the right values from the current rows. So nothing
here means "set it to high": `mark_as_workspace_repo` and `mark_as_tracked_only` both mean "sync this
repository now". Marking a repository as tracked-only while a workspace still holds it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol
from uuid import UUID

from priorityd.core.database.answers import RepositoryIdsPage, RepositoryPriority, SyncAnswer, SyncResult
from priorityd.core.errors import PermanentError, PriorityError, TransientError
from priorityd.core.library.membership_cache import MembershipCache
from priorityd.core.priorities import DEFAULT_PRIORITY, Priority, Trigger
from priorityd.core.repair.walk import FIRST_PAGE_SIZE, walk

_IDS_PAGE_SIZE: Final = 10_000


class PriorityStore(Protocol):
    """The SQL functions, one method each. Each may raise any `priorityd.core.errors.PriorityError`."""

    async def sync(
        self, repository_ids: Sequence[UUID], trigger: Trigger, *, dry_run: bool = False
    ) -> SyncAnswer: ...

    async def resync_page(
        self, after: UUID | None, limit: int, trigger: Trigger, *, dry_run: bool = False
    ) -> SyncAnswer: ...

    async def priorities(self, repository_ids: Sequence[UUID]) -> dict[UUID, RepositoryPriority]: ...

    async def workspace_count(self, repository_id: UUID) -> int: ...

    async def workspace_repository_ids(self, after: UUID | None, limit: int) -> RepositoryIdsPage: ...


class WorkspacePrioritySync:
    """Reads and repairs priorities.

    `clock` returns seconds of a monotonic clock. Look-ups are cached for five minutes; call `forget` when a
    repository has changed.
    """

    def __init__(self, store: PriorityStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._counts: MembershipCache[int] = MembershipCache()
        self._priorities: MembershipCache[Priority] = MembershipCache()

    async def sync_all_priorities(
        self,
        trigger: Trigger = "manual",
        *,
        dry_run: bool = False,
        page_size: int = FIRST_PAGE_SIZE,
        on_answer: Callable[[SyncAnswer], None] = lambda _: None,
    ) -> SyncResult:
        """Sync every tracked repository, page by page; `on_answer` gets each page's answer.

        The first page has `page_size` rows; the size of the others is adjusted to take half a second. A page
        that fails ends the sync: earlier pages stay applied, the failed one is not, and the message is in
        `errors`. A row that takes too long to write by itself is among the refused ones. Raises only errors
        that make further calls pointless (`KeyRefusedError`, `ContractError`).
        """

        async def sync_page(after: UUID | None, limit: int) -> SyncAnswer:
            answer = await self._store.resync_page(after, limit, trigger, dry_run=dry_run)
            on_answer(answer)
            self._forget_changed(answer)
            return answer

        async def look_at_page(after: UUID | None, limit: int) -> SyncAnswer:
            return await self._store.resync_page(after, limit, trigger, dry_run=True)

        return await walk(sync_page, look_at_page, page_size)

    async def mark_as_workspace_repo(self, repository_id: UUID) -> None:
        """Call after a repository was added to a workspace. Raises `PriorityError` on failure."""
        await self._sync_one(repository_id)

    async def mark_as_tracked_only(self, repository_id: UUID) -> None:
        """Call after a repository was removed from a workspace, even if another one still holds it.

        Raises `PriorityError` on failure.
        """
        await self._sync_one(repository_id)

    async def get_workspace_repository_ids(self) -> list[UUID]:
        """Every repository that is in at least one workspace, in order, each once.

        Raises `PriorityError` rather than return only some of them.
        """
        repository_ids: list[UUID] = []
        after: UUID | None = None
        while True:
            page = await self._store.workspace_repository_ids(after, _IDS_PAGE_SIZE)
            repository_ids.extend(page.repository_ids)
            after = page.next_after
            if after is None:
                return repository_ids

    async def is_in_workspace(self, repository_id: UUID) -> bool:
        """Whether at least one workspace holds the repository. Raises `PriorityError` rather than guess."""
        now = self._clock()
        count = self._counts.get(repository_id, now)
        if count is None:
            generation = self._counts.generation
            count = await self._store.workspace_count(repository_id)
            self._counts.put(repository_id, count, now, generation)
        return count > 0

    async def get_repository_priority(self, repository_id: UUID) -> Priority:
        """The priority to queue a job with: medium if the repository is unknown or the look-up fails.

        Use it for queueing only, and never write it back.
        """
        now = self._clock()
        known = self._priorities.get(repository_id, now)
        if known is not None:
            return known
        generation = self._priorities.generation
        try:
            found = await self._store.priorities([repository_id])
        except PriorityError:
            return DEFAULT_PRIORITY
        entry = found.get(repository_id)
        if entry is None:
            return DEFAULT_PRIORITY
        self._priorities.put(repository_id, entry.effective, now, generation)
        return entry.effective

    def forget(self, repository_id: UUID) -> None:
        """Drop what is cached for a repository, because it has changed."""
        self._counts.drop(repository_id)
        self._priorities.drop(repository_id)

    async def _sync_one(self, repository_id: UUID) -> None:
        self.forget(repository_id)
        answer = await self._store.sync([repository_id], "manual")
        self.forget(repository_id)
        if answer.refused:
            refused = answer.refused[0]
            text = f"The row of repository {refused.shown_as} can't be written: {refused.reason}"
            if refused.for_good:
                raise PermanentError(text, reason="rejected")
            raise TransientError(text, reason="unavailable")
        if answer.locked:
            raise TransientError(
                f"The row of repository {repository_id} is locked by another transaction", reason="contention"
            )

    def _forget_changed(self, answer: SyncAnswer) -> None:
        for change in answer.changes:
            if change.repository_id is not None:
                self.forget(change.repository_id)
