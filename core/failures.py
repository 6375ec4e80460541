"""One table: what an error answer of Supabase means for the work in hand.

An error answer is never about a row: rows that can't be written are listed in a successful answer. So
everything that may pass, even if an operator must act first, is transient; only a fault in the call itself is
permanent.

Sources: PostgreSQL's appendix "Error Codes" for five-character SQLSTATEs, PostgREST's reference "Errors" and
its `Error.hs` (12.2.12, 13.0.8, 14.9, 16.2) for PGRST codes and the HTTP status of each. Both are found in
the body. An answer without a code comes from a proxy or from Supabase's gateway.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, get_args

from priorityd.core.errors import (
    ContractError,
    DoubtfulError,
    KeyRefusedError,
    MissingGrantError,
    NoWritesError,
    PermanentError,
    PriorityError,
    TransientError,
)

Reason: TypeAlias = Literal[
    "network",  # connection refused, reset, DNS, TLS
    "timeout",  # no answer in time, or statement_timeout
    "unavailable",  # gateway, PostgREST or PostgreSQL down, starting or restarting, or taking no writes
    "rate_limited",
    "contention",  # lock time-out, deadlock, too many connections
    "schema_cache",  # PostgREST does not know the function (yet), or one that is gone
    "bad_answer",  # the answer is not what the function returns
    "key_refused",
    "not_set_up",  # a privilege is missing, or the API does not show the schema
    "not_found",  # the repository that was asked for is unknown
    "rejected",  # the database says no: a constraint, a trigger, a wrong argument, a damaged row
    "unknown",  # a bug of our own
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
    "53": "contention",  # too_many_connections, out of memory
    "53100": "unavailable",  # disk_full
    "PT409": "contention",  # what our functions raise for a locked row
    "25006": "unavailable",  # read_only_sql_transaction: a standby during failover
    "0A000": "unavailable",  # a standby answers BEGIN … READ WRITE with this
    "PGRST000": "unavailable",  # no connection to the database
    "PGRST001": "unavailable",
    "PGRST002": "unavailable",  # schema cache could not be built
    "PGRST003": "timeout",  # no free connection in the pool
    "PGRST202": "schema_cache",  # function not found; a reload may be under way
    "PGRST203": "schema_cache",
    "PGRST300": "unavailable",  # PostgREST lacks its JWT secret
    "PGRSTX": "unavailable",  # PostgREST did not understand the database
}
_NO_WRITES: Final = ("0A000", "25006", "53100")
_SERVER_CODES: Final = ("25006", "53", "57", "58")
"""With these the server refuses any row: it is read-only, full, stopping or broken. `try_write` in the
migrations has the same."""
_UNDEFINED_FUNCTION: Final = "42883"
_KEY_CODES: Final = ("PGRST301", "PGRST302", "PGRST303", "28")
_DENIED_CODE: Final = "42501"
_DOUBTFUL_CODES: Final = (
    _DENIED_CODE,
    "22023",  # raised by `set role` for a role that is gone, and by our functions for a wrong argument
)
_HIDDEN_SCHEMA_CODE: Final = "PGRST106"
_OUR_CODES: Final = "PT"
_NOT_FOUND_CODE: Final = "PT404"
_TRANSIENT_STATUSES: Final[dict[int, Reason]] = {
    408: "timeout",
    425: "unavailable",
    429: "rate_limited",
    502: "unavailable",
    503: "unavailable",
    504: "timeout",
}
_REMARKS: Final[dict[int, str]] = {
    401: "; a proxy or gateway in front of Supabase answered this",
    403: "; a proxy or gateway in front of Supabase answered this",
    404: "; is SUPABASE_URL the project's URL?",
    407: "; the proxy requires a user name and a password",
}
_STRANGERS: Final = ("anon", "authenticated")
"""The roles of an application's users, which must not get what the daemon needs."""

_READ_TABLES: Final = ("workspace_repositories", "workspaces", "repositories", "background_jobs")
_WRITTEN_TABLE: Final = "tracked_repositories"


def translate(
    status: int,
    code: str | None,
    message: str,
    *,
    hint: str = "",
    function: str = "",
    is_supabase: bool = True,
    retry_after_seconds: float | None = None,
) -> PriorityError:
    """The error to raise for an unsuccessful HTTP answer.

    `code` is the SQLSTATE or PGRST code in the body, if any; `message` and `hint` are its texts, `function`
    is what was called. `is_supabase`: the body has the form of Supabase's answers, with or without a code.
    """
    # Codes of our own functions say nothing that their messages do not.
    text = message if code and code.startswith(_OUR_CODES) else f"{message.rstrip('.')} ({code or status})"
    if code in _NO_WRITES:
        text += "; the database accepts no writes"
    if code is None:
        return _without_code(status, text, is_supabase, retry_after_seconds)
    if code.startswith(_KEY_CODES):
        return KeyRefusedError(f"Supabase refused the key: {text}")
    if code in _DOUBTFUL_CODES:
        # 401 is PostgREST's word for a caller without a key's role, or with one that does not exist.
        if status == 401:
            return KeyRefusedError(f"The key is not the service_role key (or a secret key): {text}")
        return DoubtfulError(text, code=code, hint=hint)
    if code == _HIDDEN_SCHEMA_CODE:
        return ContractError(
            f"Supabase's API does not show the schema public ({message}. {hint}): add it to the exposed "
            "schemas in the project's API settings."
        )
    if code == _UNDEFINED_FUNCTION and function and function in message:
        return TransientError(text, reason="schema_cache", retry_after_seconds=retry_after_seconds)
    reason = transient_reason(code)
    # A database error arrives with a code of its own and status 400 or 500: repeating it changes nothing.
    if reason is None and status not in (400, 500):
        reason = _transient_status(status)
    if reason is not None:
        kind = NoWritesError if code in _NO_WRITES else TransientError
        return kind(text, reason=reason, retry_after_seconds=retry_after_seconds)
    return PermanentError(text, reason="not_found" if code == _NOT_FOUND_CODE else "rejected")


def transient_reason(code: str | None) -> Reason | None:
    """Why something failed that may pass by itself; None for any other code."""
    prefixes = ((code or "")[:length] for length in range(len(code or ""), 1, -1))
    return next((_TRANSIENT_CODES[prefix] for prefix in prefixes if prefix in _TRANSIENT_CODES), None)


def seconds_asked(retry_after: str | None) -> float | None:
    """What the header Retry-After asks for; None where it is missing, or names a date."""
    try:
        return max(0.0, float(retry_after or ""))
    except ValueError:
        return None


def is_about_a_row(sqlstate: str | None) -> bool:
    """Whether the error of one row's update (None if it raised none) is the row's own.

    A trigger of the application may raise anything, PostgREST's PT409 or a serialization failure among it.
    """
    return not (sqlstate or "").startswith(_SERVER_CODES)


def judge(error: DoubtfulError, harmless: PriorityError | None, role: str) -> PriorityError:
    """What a doubtful refusal means, given the result of a call that needs the least privilege.

    `harmless` is that call's error, None if it succeeded. Texts don't decide: they are localised, and a
    trigger of the application may raise anything. `role` is the key's.
    """
    if harmless is None:
        # The call alone needs it, or a trigger or policy of the application refuses it.
        told = f"{error}; if it is a privilege, run: {grants(error, role)};" if _named(error) else str(error)
        return PermanentError(told, reason="rejected")
    if not isinstance(harmless, DoubtfulError):
        return harmless
    if harmless.code != _DENIED_CODE:
        return KeyRefusedError(f"The key's role, {role}, does not exist: {harmless}")
    if role in _STRANGERS:
        return KeyRefusedError(
            f"The key's role, {role}, may not do this; use the service_role key (or a secret key): {harmless}"
        )
    return MissingGrantError(f"The role {role} lacks a privilege: {harmless}", grants(harmless, role))


def grants(error: DoubtfulError, role: str) -> str:
    """The statements that grant the role what it lacks, as exactly as the database's message allows."""
    ours = f"grant usage on schema priorityd to {role}; select priorityd.grant_access()"
    if error.hint.startswith("grant "):
        return error.hint
    kind, name = _named(error) or ("", "")
    if kind == "schema" and name == "public":
        return f"grant usage on schema public to {role}"
    if name == _WRITTEN_TABLE:
        return f"grant select, update on public.{name} to {role}"
    if name in _READ_TABLES:
        return f"grant select on public.{name} to {role}"
    if name:
        return ours
    return (
        f"grant usage on schema public to {role}; {ours}; "
        f"grant select on public.workspace_repositories, public.workspaces to {role}; "
        f"grant select, update on public.{_WRITTEN_TABLE} to {role}"
    )


def _named(error: DoubtfulError) -> tuple[str, str] | None:
    found = re.search(r"permission denied for (schema|function|table) (\w+)", str(error))
    return (found[1], found[2]) if found else None


def _without_code(
    status: int, text: str, is_supabase: bool, retry_after_seconds: float | None
) -> PriorityError:
    # Supabase's gateway refuses an unknown key with 401 and a JSON message.
    if status == 401 and is_supabase:
        return KeyRefusedError(f"Supabase refused the key: {text}")
    return TransientError(
        text + _REMARKS.get(status, ""),
        reason=_transient_status(status) or "unavailable",
        retry_after_seconds=retry_after_seconds,
    )


def _transient_status(status: int) -> Reason | None:
    return _TRANSIENT_STATUSES.get(status) or ("unavailable" if status >= 500 else None)
