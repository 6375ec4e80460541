"""One table: what an error answer of Supabase means for the work in hand.

Sources: PostgreSQL's appendix "Error Codes" for five-character SQLSTATEs, PostgREST's reference "Errors" for
PGRST codes and the HTTP status that goes with each. The API gateway in front of both answers with a bare HTTP
status.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from priorityd.core.errors import KeyRefusedError, PermanentError, PriorityError, TransientError

Reason: TypeAlias = Literal[
    "network",  # connection refused, reset, DNS, TLS
    "timeout",  # no answer in time, or statement_timeout
    "unavailable",  # gateway, PostgREST or PostgreSQL down, starting or restarting
    "rate_limited",
    "contention",  # lock time-out, deadlock, too many connections
    "schema_cache",  # PostgREST does not know the function (yet)
    "bad_answer",  # the answer is not what the function returns
    "key_refused",
    "not_found",  # the repository that was asked for is unknown
    "rejected",  # the database says no: a constraint, a trigger, a wrong argument, a damaged row
    "unknown",  # a defect of our own
]

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

# Longest prefix first: an exact code wins over its class.
_TRANSIENT_CODES: Final[dict[str, Reason]] = {
    "57014": "timeout",  # query_canceled: statement_timeout
    "57P": "unavailable",  # admin_shutdown, crash_shutdown, cannot_connect_now
    "57": "unavailable",
    "58": "unavailable",  # system_error, io_error
    "08": "unavailable",  # connection exceptions
    "55P03": "contention",  # lock_not_available
    "40": "contention",  # deadlock_detected, serialization_failure
    "53": "contention",  # too_many_connections, out of memory or disk
    "PT409": "contention",  # what our functions raise for a row that somebody holds
    "25006": "unavailable",  # read_only_sql_transaction: a standby during failover
    "PGRST000": "unavailable",  # no connection to the database
    "PGRST001": "unavailable",
    "PGRST002": "unavailable",  # schema cache could not be built
    "PGRST003": "timeout",  # no free connection in the pool
    "PGRST202": "schema_cache",  # function not found; a reload may be under way
    "PGRST203": "schema_cache",
}
_KEY_CODES: Final = ("PGRST301", "PGRST302", "PGRST303", "28")
_DENIED_CODES: Final = ("42501",)
_NOT_FOUND_CODE: Final = "PT404"
_KEY_STATUSES: Final = (401, 403)
_TRANSIENT_STATUSES: Final[dict[int, Reason]] = {
    408: "timeout",
    425: "unavailable",
    429: "rate_limited",
    500: "unavailable",  # without a code it is not the database that speaks
    502: "unavailable",
    503: "unavailable",
    504: "timeout",
}


def translate(
    status: int, code: str | None, message: str, *, retry_after_seconds: float | None = None
) -> PriorityError:
    """The error to raise for an HTTP answer that is no success.

    `code` is the SQLSTATE or PGRST code of the body if it had one; `message` is its text.
    """
    text = f"{message} ({code or status})"
    if status == 404 and code is None:
        text += "; is SUPABASE_URL the project's URL?"
    if code is not None:
        if code.startswith(_KEY_CODES):
            return KeyRefusedError(f"Supabase refused the key: {text}")
        if code in _DENIED_CODES:
            return _denied(status, text)
        reason = _transient_reason(code)
        if reason is not None:
            return TransientError(text, reason=reason, retry_after_seconds=retry_after_seconds)
    return _by_status(status, code, text, retry_after_seconds)


def _transient_reason(code: str) -> Reason | None:
    prefixes = (code[:length] for length in range(len(code), 1, -1))
    return next((_TRANSIENT_CODES[prefix] for prefix in prefixes if prefix in _TRANSIENT_CODES), None)


def _denied(status: int, text: str) -> PriorityError:
    # 401 is PostgREST's answer when the anonymous role may not; 403 when the key's own role may not.
    return KeyRefusedError(
        f"The key's role may not do this; use the service_role key (or a secret key): {text}"
        if status in _KEY_STATUSES
        else f"Supabase denied access: {text}"
    )


def _by_status(status: int, code: str | None, text: str, retry_after_seconds: float | None) -> PriorityError:
    if code is None and status in _KEY_STATUSES:
        return KeyRefusedError(f"Supabase refused the key: {text}")
    # A database error arrives with a code of its own and status 400 or 500: repeating it changes nothing.
    if code is None or status not in (400, 500):
        reason = _TRANSIENT_STATUSES.get(status) or ("unavailable" if status >= 500 else None)
        if reason is not None:
            return TransientError(text, reason=reason, retry_after_seconds=retry_after_seconds)
    return PermanentError(text, reason="not_found" if code == _NOT_FOUND_CODE else "rejected")
