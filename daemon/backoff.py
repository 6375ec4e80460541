"""The retries inside one call: a few seconds of them, for what passes by itself.

What takes longer is the matter of whoever called: the work queue, the next sweep, the outbox.
"""

from __future__ import annotations

from typing import Final

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    wait_random_exponential,
)

from priorityd.core.errors import TransientError

MAX_ATTEMPTS: Final = 4
MAX_RETRY_SECONDS: Final = 10.0
"""The seconds that one call may spend on retrying."""
RELOAD_SECONDS: Final = 5.0
"""How long a function that the API does not know is tried: after a migration its cache loads for a while."""
_JITTERED: Final = wait_random_exponential(multiplier=0.25, max=3)


def retrying(max_attempts: int = MAX_ATTEMPTS, *, after_timeout: bool = True) -> AsyncRetrying:
    """The attempts of one call that may be repeated: again after `TransientError`, and after nothing else.

    Without `after_timeout` not after one of those either: whoever called asks for less instead.
    """
    usual = stop_after_attempt(max_attempts) | stop_before_delay(MAX_RETRY_SECONDS)
    unknown = stop_after_delay(RELOAD_SECONDS)

    def stop(state: RetryCallState) -> bool:
        reason = _reason(state)
        if reason == "timeout" and not after_timeout:
            return True
        return unknown(state) if reason == "schema_cache" else usual(state)

    return AsyncRetrying(retry=retry_if_exception_type(TransientError), stop=stop, wait=_wait, reraise=True)


def _reason(state: RetryCallState) -> str | None:
    error = state.outcome.exception() if state.outcome else None
    return error.reason if isinstance(error, TransientError) else None


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, TransientError) else None
    return max(asked or 0.0, _JITTERED(state))
