"""The four ways in which work can fail, and the exit code of each.

Transient errors are retried, permanent ones parked and counted, configuration and contract errors refuse to
start. Anything else that is raised is a bug: in the work for one repository it is logged, counted and
retried; anywhere else it ends the process, for its supervisor to restart.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MAX_RETRY_AFTER_SECONDS: Final = 300.0
"""The longest wait that a server may ask for, whatever the limit of the caller's own delays."""


class ExitCode(IntEnum):
    """What the command line returns to its caller; from 69 on as in BSD's sysexits.h."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DIFFERENT = 10
    """A dry run found rows that a real one would change."""
    UNAVAILABLE = 69
    """Supabase or Inngest can't be reached or keeps answering with temporary errors."""
    SCHEMA = 76
    """The database lacks a migration or a privilege that this version needs."""
    KEY_REFUSED = 77
    """Supabase does not accept the key, or it is not a service_role key."""
    CONFIGURATION = 78
    """A setting is missing or out of range."""


class PriorityError(Exception):
    """Base of the errors below. The message is written for an operator and never holds a key."""

    exit_code: ExitCode = ExitCode.FAILED


class TransientError(PriorityError):
    """The same call may succeed later.

    `reason` is one of `core.failures.REASONS`; `retry_after_seconds` is what the server asked for.
    """

    exit_code = ExitCode.UNAVAILABLE

    def __init__(self, message: str, *, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds

    @property
    def least_delay_seconds(self) -> float:
        """The shortest wait before another call: what the server asked for, at most five minutes."""
        return min(self.retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS)


class NoWritesError(TransientError):
    """The database accepts no writes: it is a standby, was made read-only, or its disk is full."""


class PermanentError(PriorityError):
    """The same call with the same arguments will fail again. `reason` as for `TransientError`."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class DoubtfulError(PermanentError):
    """A refusal that may be because of the key, a privilege, or the call itself: the answer alone does not
    show which.

    `core.failures.judge` decides, from the result of a harmless call. `hint` is the database's own.
    """

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, reason="rejected")
        self.code = code
        self.hint = hint


class ContractError(PriorityError):
    """The database or its API lacks what this version needs; the message has the command to run."""

    exit_code = ExitCode.SCHEMA


class MissingGrantError(ContractError):
    """The key's role lacks a privilege; `statements` grant it."""

    def __init__(self, message: str, statements: str) -> None:
        super().__init__(f"{message}. Run: {statements};")
        self.statements = statements


class KeyRefusedError(PriorityError):
    """Supabase refused its key."""

    exit_code = ExitCode.KEY_REFUSED


class InngestKeyRefusedError(PriorityError):
    """Inngest refused its event key or its signing key; the message says which."""

    exit_code = ExitCode.KEY_REFUSED


class ConfigurationError(PriorityError):
    """A setting is missing or out of range; the message names it."""

    exit_code = ExitCode.CONFIGURATION


def first_of(group: BaseExceptionGroup[PriorityError]) -> PriorityError:
    """The first error of a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, PriorityError)  # noqa: S101 - `except*` let nothing else in
    return error
