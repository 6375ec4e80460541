"""Hooks that a Python application calls after it has changed a workspace, to have the priority right at once.

The workspace operation has already succeeded, so a hook must not make it fail: it raises nothing and takes no
longer than its time-out. If it fails, the change stream or a sweep does the same a moment later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

import anyio
import structlog

from priorityd.core.library.workspace_priority_sync import WorkspacePrioritySync

log = structlog.stdlib.get_logger()

DEFAULT_TIMEOUT_SECONDS: Final = 2.0


class WorkspaceHooks:
    """Syncs priorities after changes to workspaces.

    `timeout_seconds` is the longest that a hook may take. `on_change` is called with the repository, whether
    the sync succeeded or not, to invalidate caches of priorities (`DirectQueue.forget`).
    """

    def __init__(
        self,
        service: WorkspacePrioritySync,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        on_change: Callable[[UUID], None] = lambda _: None,
    ) -> None:
        self._service = service
        self._timeout_seconds = timeout_seconds
        self._on_change = on_change

    async def repository_added(self, workspace_id: UUID | str, repository_id: UUID | str) -> bool:
        """Call after a repository was added to a workspace.

        True if the priority is right now, False if that is left to the stream. Raises nothing, except when
        the caller is cancelled.
        """
        return await self._call("added", workspace_id, repository_id, self._service.mark_as_workspace_repo)

    async def repository_removed(self, workspace_id: UUID | str, repository_id: UUID | str) -> bool:
        """Call after a repository was removed from a workspace, even if others still hold it.

        Returns and raises what `repository_added` does.
        """
        return await self._call("removed", workspace_id, repository_id, self._service.mark_as_tracked_only)

    async def _call(
        self,
        operation: str,
        workspace_id: UUID | str,
        repository_id: UUID | str,
        sync: Callable[[UUID], Awaitable[None]],
    ) -> bool:
        facts = {
            "operation": operation,
            "workspace_id": str(workspace_id),
            "repository_id": str(repository_id),
        }
        try:
            await self._sync(UUID(str(repository_id)), sync)
        except Exception as error:  # noqa: BLE001 - the workspace operation has succeeded anyway
            # Not even a failure to write the log may harm the operation.
            with suppress(Exception):
                log.warning("workspace_hook_deferred", error=str(error) or type(error).__name__, **facts)
            return False
        with suppress(Exception):
            log.info("workspace_hook_done", **facts)
        return True

    async def _sync(self, repository_id: UUID, sync: Callable[[UUID], Awaitable[None]]) -> None:
        try:
            with anyio.move_on_after(self._timeout_seconds) as scope:
                await sync(repository_id)
            if scope.cancelled_caught:
                raise TimeoutError(f"not done within {self._timeout_seconds:g} s")
        finally:
            self._on_change(repository_id)
