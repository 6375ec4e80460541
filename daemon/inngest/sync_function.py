"""The Inngest function `sync-workspace-priorities`, for applications that send the event
`workspace/priorities.sync` after a workspace operation, or to have everything synced.

If the event's data has a `repositoryId`, that repository is synced at once; otherwise every tracked row is,
as in a scheduled resync. The output is the `SyncResult` with the TypeScript names; `errors` has the most
frequent reasons for which rows were refused. Transient errors are raised, and Inngest retries twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import structlog

from priorityd.core.database.answers import RefusedRow, SyncAnswer, SyncResult
from priorityd.core.errors import PermanentError, TransientError
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.database.store import Store
from priorityd.daemon.repair.resyncer import Resyncer

log = structlog.stdlib.get_logger()

REASONS_SHOWN: Final = 20
"""There may be one for each row. Inngest refuses an output above 4 MiB and closes a worker's connection for a
message above 8 MiB (`pkg/consts/consts.go` of its open-source server, e9d7dc8; its protocol of `connect`)."""


class SyncFunction:
    """See the module's docstring."""

    def __init__(self, store: Store, walker: Resyncer, *, recorder: Recorder) -> None:
        self._store = store
        self._walker = walker
        self._recorder = recorder

    async def __call__(self, data: Mapping[str, object]) -> dict[str, Any]:
        """Answer one event. Raises `PermanentError` for an invalid `repositoryId`, and the store's errors."""
        named = data.get("repositoryId")
        log.info("sync_event_received", repository_id=named if isinstance(named, str) else None)
        result = await self._walk() if named is None else await self._sync(_repository_id(named))
        return {
            "examined": result.examined,
            "workspaceRepos": result.workspace_repos,
            "trackedOnlyRepos": result.tracked_only_repos,
            "untracked": result.untracked,
            "priorityChanges": result.priority_changes,
            "errors": list(_reasons(result.refused)),
        }

    async def _sync(self, repository_id: UUID) -> SyncResult:
        answer = await self._store.sync([repository_id], "manual")
        self._recorder.record(answer, "manual")
        return _complete(answer)

    async def _walk(self) -> SyncResult:
        result = await self._walker.walk("manual")
        if result.errors:
            raise TransientError(_joined(result.errors), reason="unavailable")
        return result


def _reasons(refused: Sequence[RefusedRow]) -> Iterator[str]:
    """Why rows were refused, each reason once with the number of its rows if there are several."""
    left = len(refused)
    for reason, rows in Counter(row.reason for row in refused).most_common(REASONS_SHOWN):
        yield f"{reason} ({rows:,} rows)" if rows > 1 else reason
        left -= rows
    if left:
        yield f"and {left:,} more {'row was' if left == 1 else 'rows were'} refused"


def _joined(errors: Sequence[str]) -> str:
    more = len(errors) - REASONS_SHOWN
    return "; ".join(errors[:REASONS_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")


def _complete(answer: SyncAnswer) -> SyncResult:
    result = SyncResult()
    result.add(answer)
    if result.errors:
        raise TransientError(_joined(result.errors), reason="contention")
    return result


def _repository_id(named: object) -> UUID:
    try:
        return UUID(named if isinstance(named, str) else "")
    except ValueError:
        text = f"repositoryId is {named!r:.80}, which is not a UUID"
        raise PermanentError(text, reason="rejected") from None
