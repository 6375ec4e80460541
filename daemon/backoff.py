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
    stop_before_delay,
    wait_random_exponential,
)

from priorityd.core.errors import TransientError

MAX_ATTEMPTS: Final = 4
MAX_RETRY_SECONDS: Final = 10.0
"""The seconds that one call may spend on retrying."""
_JITTERED: Final = wait_random_exponential(multiplier=0.25, max=3)


def retrying(max_attempts: int = MAX_ATTEMPTS) -> AsyncRetrying:
    """The attempts of one call that may be repeated: again after `TransientError`, and after nothing else."""
    return AsyncRetrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(max_attempts) | stop_before_delay(MAX_RETRY_SECONDS),
        wait=_wait,
        reraise=True,
    )


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, TransientError) else None
    return max(asked or 0.0, _JITTERED(state))
