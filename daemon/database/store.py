"""Calls the SQL functions through Supabase's REST API, with retries within a call.

Every function is idempotent, so every call may be repeated. All errors raised here are from `core.errors`.

Whether a refusal is about the key, a privilege, or the call is found out here, by harmless calls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import anyio
import httpx
import structlog
from postgrest import AsyncPostgrestClient
from pydantic import TypeAdapter, ValidationError

from priorityd.core.database.answers import RepositoryIdsPage, RepositoryPriority, SyncAnswer
from priorityd.core.database.schema import VERSION_FUNCTION, SchemaVersion
from priorityd.core.errors import (
    ContractError,
    DoubtfulError,
    KeyRefusedError,
    PermanentError,
    PriorityError,
    TransientError,
)
from priorityd.core.failures import Reason, judge
from priorityd.core.priorities import Label, Trigger
from priorityd.daemon.backoff import retrying
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.api_key import ApiKey, role_of
from priorityd.daemon.database.rest_client import open_http
from priorityd.daemon.database.rows import (
    Beat,
    DatabaseCheck,
    Explanation,
    FoundRepository,
    JobPage,
    LeaseAnswer,
    NoJobs,
    PinAnswer,
    RollbackAnswer,
    Snapshot,
)

log = structlog.stdlib.get_logger()

CALL_TIMEOUT_SECONDS: Final = 35.0
_TIMEOUT_SECONDS: Final = {
    "sync_workspace_priorities": 15.0,
    "sweep_workspace_priorities": 20.0,
    "beat_workspace_priorities": 10.0,
    "hold_workspace_priority_lease": 5.0,
    "release_workspace_priority_lease": 5.0,
    "release_ordered_jobs": 22.0,
    "mark_jobs_sent": 17.0,
    "return_unsent_jobs": 17.0,
    "fail_refused_jobs": 17.0,
    "settle_lost_jobs": 17.0,
    "check_job_lanes": 20.0,
    "claim_priority_changes": 12.0,
    "mark_priority_changes_dispatched": 17.0,
    "abandon_priority_changes": 17.0,
    "return_priority_changes": 17.0,
    "rollback_workspace_priorities": 605.0,
}
"""Just above the functions' own statement_timeout: the database gives up first, and says why. The functions
that keep priorities in sync, release jobs and announce changes have shorter time-outs than the rest, because
a connection whose peer is gone stays silent."""
_NOT_AGAIN_AFTER_TIMEOUT: Final = frozenset(
    {
        "sync_workspace_priorities",
        "sweep_workspace_priorities",
        "resync_workspace_priorities_page",
        "rollback_workspace_priorities",
    }
)
"""Not repeated after a time-out: the caller asks for fewer rows. A rollback may still be running."""

Answer = TypeVar("Answer")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Built when first needed: a start needs few of them, and each takes a millisecond."""
    return TypeAdapter(kind)


def read(kind: type[Answer], answer: Any) -> Answer:
    """What a function answered. Raises `ValidationError`."""
    kept: Any = kind
    found: Answer = _adapter(kept).validate_python(answer)
    return found


class Store:
    """See the module's docstring. Make one with `open_store`.

    `on_error` is called with the reason of every failed attempt. `answered_at` is when a call was last
    answered (monotonic seconds). `url` is for messages.
    """

    def __init__(
        self,
        client: AsyncPostgrestClient,
        api_key: ApiKey,
        url: str,
        *,
        on_error: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._api_key = api_key
        self._url = url
        self._on_error = on_error
        self._outlives_refusals = False
        self._refused = False
        self.answered_at = monotonic()

    def outlive_refusals(self) -> None:
        """From now on treat a refused key or a missing privilege as transient: it has worked before."""
        self._outlives_refusals = True

    async def sync(
        self, repository_ids: Sequence[UUID], trigger: Trigger, *, dry_run: bool = False
    ) -> SyncAnswer:
        """Sync exactly these repositories."""
        ids = [str(repository_id) for repository_id in repository_ids]
        return await self._call(
            SyncAnswer,
            "sync_workspace_priorities",
            p_repository_ids=ids,
            p_trigger=trigger,
            p_dry_run=dry_run,
        )

    async def sweep(self, trigger: Trigger, limit: int, *, dry_run: bool = False) -> SyncAnswer:
        """Find and repair up to `limit` rows that disagree with membership."""
        return await self._call(
            SyncAnswer, "sweep_workspace_priorities", p_trigger=trigger, p_limit=limit, p_dry_run=dry_run
        )

    async def resync_page(
        self, after: UUID | None, limit: int, trigger: Trigger, *, dry_run: bool = False
    ) -> SyncAnswer:
        """Sync the next `limit` tracked rows after the key `after`."""
        return await self._call(
            SyncAnswer,
            "resync_workspace_priorities_page",
            p_after=str(after) if after else None,
            p_limit=limit,
            p_trigger=trigger,
            p_dry_run=dry_run,
        )

    async def priorities(self, repository_ids: Sequence[UUID]) -> dict[UUID, RepositoryPriority]:
        """Priorities by repository; those without a tracked row are absent."""
        ids = [str(repository_id) for repository_id in repository_ids]
        return await self._call(
            dict[UUID, RepositoryPriority], "get_repository_priorities", p_repository_ids=ids
        )

    async def find_repositories(
        self, repository_ids: Sequence[UUID], names: Sequence[str]
    ) -> tuple[FoundRepository, ...]:
        """The known repositories with these ids or names (`owner/name`); a name may match several."""
        ids = [str(repository_id) for repository_id in repository_ids]
        return await self._call(
            tuple[FoundRepository, ...], "find_repositories", p_repository_ids=ids, p_names=list(names)
        )

    async def explain(self, repository_id: UUID) -> Explanation:
        """Why the repository has the priority it has."""
        return await self._call(
            Explanation, "explain_repository_priority", p_repository_id=str(repository_id)
        )

    async def workspace_count(self, repository_id: UUID) -> int:
        """How many workspaces hold the repository now, counted from the memberships."""
        try:
            return (await self.explain(repository_id)).expected.workspace_count
        except PermanentError as error:
            if error.reason == "not_found":
                return 0
            raise

    async def workspace_repository_ids(self, after: UUID | None, limit: int) -> RepositoryIdsPage:
        """The next `limit` repositories, in order, that are in a workspace."""
        return await self._call(
            RepositoryIdsPage,
            "get_workspace_repository_ids",
            p_after=str(after) if after else None,
            p_limit=limit,
        )

    async def set_manual_priority(self, repository_id: UUID, priority: Label | None) -> PinAnswer:
        """Set or (None) clear the manual priority, and sync the row."""
        return await self._call(
            PinAnswer, "set_manual_priority", p_repository_id=str(repository_id), p_priority=priority
        )

    async def snapshot(self) -> Snapshot:
        """Counts of everything."""
        return await self._call(Snapshot, "workspace_priority_snapshot")

    async def poll_jobs(self, daemon_id: UUID, counted_page: int | None, limit: int) -> JobPage | NoJobs:
        """The next up to `limit` ended jobs, after the page that this daemon counted last."""
        return await self._call(
            cast("type[JobPage | NoJobs]", JobPage | NoJobs),
            "poll_background_jobs",
            p_daemon_id=str(daemon_id),
            p_counted_page=counted_page,
            p_limit=limit,
        )

    async def rollback(self) -> RollbackAnswer:
        """Remove every repository's workspace priority."""
        return await self._call(RollbackAnswer, "rollback_workspace_priorities")

    async def beat(self, daemon_id: UUID) -> Beat:
        """Write the daemon's heartbeat row, which must come back through the stream."""
        return await self._call(Beat, "beat_workspace_priorities", p_daemon_id=str(daemon_id))

    async def hold_lease(self, daemon_id: UUID, seconds: float) -> LeaseAnswer:
        """Take the lease on timer work if it is free, or renew it, for `seconds`.

        This writes the daemon's heartbeat row as well.
        """
        return await self._call(
            LeaseAnswer, "hold_workspace_priority_lease", p_daemon_id=str(daemon_id), p_seconds=seconds
        )

    async def release_lease(self, daemon_id: UUID) -> None:
        """Give up the lease if the daemon has it."""
        await self._call(dict[str, bool], "release_workspace_priority_lease", p_daemon_id=str(daemon_id))

    async def demand_rights(self) -> None:
        """Raise `ContractError` if the key's role lacks a privilege on the application's tables."""
        await self.sync([], "manual", dry_run=True)

    async def check(self) -> DatabaseCheck:
        """How the database looks to this key."""
        return await self._call(DatabaseCheck, "check_workspace_priorities")

    async def schema_version(self) -> SchemaVersion:
        """Which set of migrations is applied."""
        return await self._call(SchemaVersion, VERSION_FUNCTION)

    async def call(self, kind: type[Answer], function: str, **params: Any) -> Answer:
        """Call a function that has no method here; `kind` is the type of its answer."""
        return await self._call(kind, function, **params)

    async def _call(self, kind: type[Answer], function: str, **params: Any) -> Answer:
        while True:
            keys = self._api_key.in_use
            try:
                answer = await self._call_judged(kind, function, params)
            except KeyRefusedError as error:
                if not self._api_key.replaced(keys):
                    self._log_first_refusal()
                    raise self._lasting(error, "key_refused") from None
            except ContractError as error:
                raise self._lasting(error, "not_set_up") from None
            else:
                self._refused = False
                self.answered_at = monotonic()
                return answer

    def _lasting(self, error: PriorityError, reason: Reason) -> PriorityError:
        return TransientError(str(error), reason=reason) if self._outlives_refusals else error

    def _log_first_refusal(self) -> None:
        if not self._refused:
            self._refused = True
            log.warning("key_refused")

    async def _call_judged(self, kind: type[Answer], function: str, params: Mapping[str, Any]) -> Answer:
        try:
            return await self._call_with_retries(kind, function, params)
        except DoubtfulError as error:
            judged = judge(error, await self._try_harmless_calls(), role_of(self._api_key.key))
            self._on_error(_reason_of(judged))
            raise judged from None

    async def _try_harmless_calls(self) -> PriorityError | None:
        """The first shows whether the key may do anything, the second whether it may do what is needed."""
        nothing = {"p_repository_ids": [], "p_trigger": "manual", "p_dry_run": True}
        try:
            await self._call_with_retries(SchemaVersion, VERSION_FUNCTION, {})
            await self._call_with_retries(SyncAnswer, "sync_workspace_priorities", nothing)
        except PriorityError as error:
            return error
        return None

    async def _call_with_retries(
        self, kind: type[Answer], function: str, params: Mapping[str, Any]
    ) -> Answer:
        async for attempt in retrying(after_timeout=function not in _NOT_AGAIN_AFTER_TIMEOUT):
            with attempt:
                return await self._call_once(kind, function, params)
        raise AssertionError("tenacity either returns or raises")

    async def _call_once(self, kind: type[Answer], function: str, params: Mapping[str, Any]) -> Answer:
        try:
            with anyio.fail_after(_TIMEOUT_SECONDS.get(function, CALL_TIMEOUT_SECONDS)):
                response = await self._client.rpc(function, dict(params)).execute()
            return read(kind, response.data)
        except PriorityError as error:
            if not isinstance(error, DoubtfulError):
                self._on_error(_reason_of(error))
            raise
        except (TimeoutError, httpx.TimeoutException):
            self._on_error("timeout")
            raise TransientError(f"{function}: no answer in time", reason="timeout") from None
        except httpx.HTTPError as error:
            self._on_error("network")
            said = str(error) or type(error).__name__
            text = f"Supabase can't be reached at {self._url} for {function}: {said}"
            raise TransientError(text, reason="network") from None
        except (ValidationError, ValueError, RecursionError) as error:
            self._on_error("bad_answer")
            raise TransientError(f"{function}: {_not_understood(error)}", reason="bad_answer") from None


@asynccontextmanager
async def open_store(
    url: str,
    key: str | ApiKey,
    *,
    on_error: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Store]:
    """A store for the project at `url`; nothing is sent until the first call."""
    api_key = key if isinstance(key, ApiKey) else ApiKey(key)
    async with open_http(api_key) as http:
        # Only the part of Supabase's client that is used: the whole takes twice as long to import, and
        # keeps modules for authentication and storage in memory for nothing.
        client = AsyncPostgrestClient(f"{url}/rest/v1", http_client=http, retry_enabled=False)
        yield Store(client, api_key, url, on_error=on_error)


def _reason_of(error: PriorityError) -> str:
    if isinstance(error, ContractError):
        return "not_set_up"
    return error.reason if isinstance(error, TransientError | PermanentError) else "key_refused"


def _not_understood(error: ValueError | RecursionError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return (
            f"the answer is not understood at {'.'.join(map(str, first['loc'])) or 'its top'}: {first['msg']}"
        )
    return f"the answer is not understood: {type(error).__name__}"
