"""What must be true before the daemon works: Supabase answers, takes the key, and has the migrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
import structlog

from priorityd.core.backoff import Backoff
from priorityd.core.database.schema import demand_version, missing_schema
from priorityd.core.errors import TransientError
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.store import Store

log = structlog.stdlib.get_logger()

_FIRST_DELAY_SECONDS: Final = 0.5
_MAX_DELAY_SECONDS: Final = 5.0
_UNKNOWN_FUNCTION_TRIES: Final = 2
"""Each of several attempts: the API may be about to reload its schema cache."""


async def wait_for_schema(store: Store, on_attempt: Callable[[], None] = lambda: None) -> None:
    """Return once the database has what this version needs; wait for ever while Supabase is down.

    Raises `ContractError` when migrations are missing and `KeyRefusedError` when the key is refused.
    """
    unknown, backoff = 0, Backoff(_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS)
    while True:
        on_attempt()
        try:
            demand_version(await store.schema_version())
        except TransientError as error:
            unknown = unknown + 1 if error.reason == "schema_cache" else 0
            if unknown == _UNKNOWN_FUNCTION_TRIES:
                raise missing_schema() from None
            delay = backoff.failed(monotonic())
            log.warning("waiting_for_supabase", error=str(error), retry_in_seconds=delay)
            await anyio.sleep(delay)
        else:
            return
