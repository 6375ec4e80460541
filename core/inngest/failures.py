"""What an unsuccessful answer of Inngest's event API means for the events that were sent.

Sources: Inngest's open-source server (`pkg/api/api.go`: 400 with the ids of events already taken, 401 for an
unknown key, 503 without keys) and what its gateway adds (413, 429, 5xx).
"""

from __future__ import annotations

from typing import Final

from priorityd.core.errors import InngestKeyRefusedError, PermanentError, PriorityError, TransientError
from priorityd.core.failures import Reason

REFUSED_STATUSES: Final = (400, 413, 422)
"""The request is refused because of its content: repeating it would fail again."""
_KEY_STATUSES: Final = (401, 403)
_REASONS: Final[dict[int, Reason]] = {408: "timeout", 429: "rate_limited", 504: "timeout"}


def translate_inngest(
    status: int, message: str, *, retry_after_seconds: float | None = None
) -> PriorityError:
    """The error to raise for an unsuccessful answer; `message` is its text.

    Anything that is not the events' fault counts as temporary, even a wrong address: a mistake in the
    settings must not discard events.
    """
    text = f"Inngest answered {status}: {message}"
    if status in _KEY_STATUSES:
        return InngestKeyRefusedError(
            f"Inngest refused the event key (INNGEST_EVENT_KEY): {message} ({status})"
        )
    if status in REFUSED_STATUSES:
        return PermanentError(text, reason="rejected")
    if status == 404:
        text += "; is INNGEST_BASE_URL or INNGEST_EVENT_API_BASE_URL that of Inngest's event API?"
    return TransientError(
        text, reason=_REASONS.get(status, "unavailable"), retry_after_seconds=retry_after_seconds
    )
