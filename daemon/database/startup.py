"""What must be true before the daemon works: Supabase answers, takes the key, and has the migrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
import structlog

from priorityd.core.backoff import Backoff
from priorityd.core.database.schema import demand_version, missing_schema
from priorityd.core.errors import ContractError, KeyRefusedError, PermanentError, TransientError
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.store import Store
from priorityd.daemon.liveness import TICK_SECONDS

log = structlog.stdlib.get_logger()

PATIENCE_SECONDS: Final = 60.0
"""How long a refused key is retried, and a missing function or privilege waited for. After `supabase db push`
the API's cache takes many seconds to load, and a server that refuses a good key may be restarting."""
_FIRST_DELAY_SECONDS: Final = 0.5
_MAX_DELAY_SECONDS: Final = 5.0


async def wait_for_schema(
    store: Store, on_attempt: Callable[[], None] = lambda: None, *, patience_seconds: float = PATIENCE_SECONDS
) -> None:
    """Return once the database has what this version needs; wait indefinitely while Supabase is down.

    `on_attempt` is called before each attempt, and from time to time while it waits for the next.
    Raises `ContractError` at once if migrations are too old, and after `patience_seconds` if they or a
    privilege are missing; `KeyRefusedError` if the key is still refused then.
    """
    refused_since, backoff = None, Backoff(_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS)
    while True:
        on_attempt()
        error = await _what_is_wrong(store)
        if error is None:
            return
        if isinstance(error, TransientError):
            refused_since = None
        else:
            refused_since = refused_since or monotonic()
            if monotonic() - refused_since >= patience_seconds:
                raise error
        delay = backoff.failed(monotonic(), error)
        log.warning("start_delayed", error=str(error), retry_in_seconds=delay)
        await _rest(delay, on_attempt)


async def _rest(seconds: float, show_life: Callable[[], None]) -> None:
    ends_at = monotonic() + seconds
    while (left := ends_at - monotonic()) > TICK_SECONDS:
        await anyio.sleep(TICK_SECONDS)
        show_life()
    await anyio.sleep(left)


async def _what_is_wrong(store: Store) -> TransientError | ContractError | KeyRefusedError | None:
    """An error that may pass by itself, None if all is well; other errors are raised."""
    try:
        version = await store.schema_version()
    except TransientError as error:
        return missing_schema() if error.reason == "schema_cache" else error
    except (ContractError, KeyRefusedError) as error:
        return error
    demand_version(version)
    try:
        await store.demand_rights()
    except (ContractError, KeyRefusedError) as error:
        return error
    except (TransientError, PermanentError) as error:
        # The agents will run into this too, and report it.
        log.warning("privilege_check_failed", error=str(error))
    return None
