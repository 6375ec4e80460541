"""What an unsuccessful answer of Inngest's event API means for the events that were sent.

Sources: Inngest's open-source server, 253303c (`pkg/api/api.go`: 400 with the ids of events already taken,
401 for an unknown key, 503 without keys), and what gateways add (413, 429, 5xx, and 400, 401 or 403 as a
page). The server answers 400 for any error, its own included: a failure of its queue
(`pkg/pubsub/broker.go`, `Publish`), or a request that it did not receive completely.
"""

from __future__ import annotations

from typing import Final

from priorityd.core.errors import InngestKeyRefusedError, PermanentError, PriorityError, TransientError
from priorityd.core.failures import Reason

REFUSED_STATUSES: Final = (400, 413, 422)
"""The request is refused because of its content: repeating it would fail again."""
_KEY_STATUSES: Final = (401, 403)
_OF_ANY_SIZE: Final = 413
"""Refused because of its size, by Inngest or by a gateway."""
_NOT_OF_THE_EVENT: Final = (
    "error publishing event",
    "error opening topic",
    "context canceled",
    "context deadline exceeded",
    "unexpected EOF",
)
"""How the server reports a failure of its own, with status 400."""
_REASONS: Final[dict[int, Reason]] = {408: "timeout", 429: "rate_limited", 504: "timeout"}


def translate_inngest(
    status: int, message: str, *, is_inngests: bool = True, retry_after_seconds: float | None = None
) -> PriorityError:
    """The error to raise for an unsuccessful answer; `message` is its text.

    `is_inngests`: the answer has the form of Inngest's own, and is not a page from a gateway. Anything that
    is not the events' fault counts as temporary, even a wrong address: a mistake in the settings must not
    discard events.
    """
    text = f"Inngest answered {status}: {message}"
    if status in _KEY_STATUSES and is_inngests:
        return InngestKeyRefusedError(
            f"Inngest refused the event key (INNGEST_EVENT_KEY): {message} ({status})"
        )
    if status == _OF_ANY_SIZE or (
        status in REFUSED_STATUSES and is_inngests and not any(each in message for each in _NOT_OF_THE_EVENT)
    ):
        return PermanentError(text, reason="rejected")
    if not is_inngests and status in (*_KEY_STATUSES, *REFUSED_STATUSES):
        text += "; a proxy or gateway in front of Inngest answered this"
    if status == 404:
        text += "; is INNGEST_BASE_URL or INNGEST_EVENT_API_BASE_URL that of Inngest's event API?"
    return TransientError(
        text, reason=_REASONS.get(status, "unavailable"), retry_after_seconds=retry_after_seconds
    )
