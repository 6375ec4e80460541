"""The retries inside one call: for a few seconds, for faults that pass by themselves.

Longer ones are the caller's business: the work queue, the next sweep, the outbox.
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
"""How long an unknown function is retried: after a migration the API's cache takes a while to load."""
_JITTERED: Final = wait_random_exponential(multiplier=0.25, max=3)


def retrying(max_attempts: int = MAX_ATTEMPTS, *, after_timeout: bool = True) -> AsyncRetrying:
    """The attempts of one repeatable call: again after `TransientError`, and after nothing else.

    Without `after_timeout` not after a time-out either: the caller asks for less instead.
    """
    usual = stop_after_attempt(max_attempts) | stop_before_delay(MAX_RETRY_SECONDS)
    # A server may ask for any wait; the caller has its own for what takes long.
    unknown = stop_after_delay(RELOAD_SECONDS) | stop_before_delay(MAX_RETRY_SECONDS)

    def stop(state: RetryCallState) -> bool:
        reason = _reason(state)
        if reason == "timeout" and not after_timeout:
            return True
        return unknown(state) if reason == "schema_cache" else usual(state)

    return AsyncRetrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop,
        wait=_wait,
        retry_error_callback=_raise,
    )


def _reason(state: RetryCallState) -> str | None:
    error = state.outcome.exception() if state.outcome else None
    return error.reason if isinstance(error, TransientError) else None


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.least_delay_seconds if isinstance(error, TransientError) else 0.0
    return max(asked, _JITTERED(state))


def _raise(state: RetryCallState) -> None:
    """Raise the last error.

    Unlike with tenacity's `reraise`, the error's frames do not refer to the error. Such a cycle would keep an
    answer, which can be large, in memory until a full garbage collection.
    """
    outcome, state.outcome = state.outcome, None
    try:
        if outcome is not None:
            outcome.result()
    finally:
        del outcome
