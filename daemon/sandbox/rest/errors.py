"""Errors as PostgREST answers them: a body with code, message, details and hint, and the HTTP status.

The mapping from SQLSTATE to status is PostgREST's ("HTTP Status Codes" on its manual's page about errors, and
a few special cases in its source).
"""

from __future__ import annotations

from http import HTTPStatus

from psycopg import Error
from starlette.responses import JSONResponse, Response

# The first entry whose prefix matches counts, so exact codes come before their class.
_STATUS_BY_SQLSTATE: tuple[tuple[str, int], ...] = (
    ("08", 503),
    ("09", 500),
    ("0L", 403),
    ("0P", 403),
    ("21000", 500),
    ("23503", 409),
    ("23505", 409),
    ("25006", 405),
    ("25", 500),
    ("28", 403),
    ("2D", 500),
    ("38", 500),
    ("39", 500),
    ("3B", 500),
    ("40", 500),
    ("42883", 404),
    ("42P01", 404),
    ("42P17", 500),
    ("42501", 403),
    ("53400", 500),
    ("53", 503),
    ("54", 500),
    ("55", 500),
    ("57P01", 503),
    ("57", 500),
    ("58", 500),
    ("F0", 500),
    ("HV", 500),
    ("P0001", 400),
    ("P0", 500),
    ("XX", 500),
)


# PostgREST adds its delay before reconnecting to every 503, but never sets that number: it is always 0.
_NEXT_DELAY = "0"


class ApiError(Exception):
    """An answer other than success."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: str | None = None,
        hint: str | None = None,
        *,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.hint = hint
        self.retry_after = retry_after

    def response(self) -> Response:
        """The answer for the client."""
        body = {"code": self.code, "details": self.details, "hint": self.hint, "message": self.message}
        headers = {"Proxy-Status": f"PostgREST; error={self.code}"}
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = self._challenge()
        retry_after = self.retry_after
        if retry_after is None and self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            retry_after = _NEXT_DELAY
        if retry_after is not None:
            headers["Retry-After"] = retry_after
        return JSONResponse(body, self.status, headers)

    def _challenge(self) -> str:
        if self.code in {"PGRST301", "PGRST303"}:
            return f'Bearer error="invalid_token", error_description="{self.message}"'
        return "Bearer"


def from_database(error: Error, role: str) -> ApiError:
    """The answer to a request of this role that failed with a database error."""
    if error.sqlstate is None:
        return connection_lost(error)
    message = error.diag.message_primary or str(error)
    status = status_of(error.sqlstate, message, role)
    return ApiError(status, error.sqlstate, message, error.diag.message_detail, error.diag.message_hint)


def status_of(sqlstate: str, message: str, role: str) -> int:
    """The HTTP status of a SQLSTATE; for anon, a missing privilege is 401, because logging in might help."""
    if sqlstate == "42501" and role == "anon":
        return 401
    if sqlstate == "22023" and message.startswith("role") and message.endswith("does not exist"):
        return 401
    if sqlstate.startswith("PT"):
        return _custom_status(sqlstate)
    return next((status for prefix, status in _STATUS_BY_SQLSTATE if sqlstate.startswith(prefix)), 400)


def _custom_status(sqlstate: str) -> int:
    """`raise sqlstate 'PT402'` answers 402."""
    digits = sqlstate[2:]
    return int(digits) if digits.isdigit() and 200 <= int(digits) <= 599 else 500


def connection_lost(error: Error) -> ApiError:
    """The connection broke while in use."""
    return ApiError(503, "PGRST001", "Database client error. Retrying the connection.", str(error))


def no_connection(error: Exception) -> ApiError:
    """No connection could be made."""
    return ApiError(503, "PGRST000", "Database connection error. Retrying the connection.", str(error))


def pool_exhausted() -> ApiError:
    """All connections stayed busy for too long."""
    return ApiError(504, "PGRST003", "Timed out acquiring connection from connection pool.")


def no_schema_cache() -> ApiError:
    """The schema cache has never been loaded."""
    return ApiError(503, "PGRST002", "Could not query the database for the schema cache. Retrying.")


def gateway_refusal(message: str, hint: str) -> JSONResponse:
    """The answer of Supabase's API gateway, which refuses a key before PostgREST sees the request."""
    return JSONResponse({"message": message, "hint": hint}, 401)
