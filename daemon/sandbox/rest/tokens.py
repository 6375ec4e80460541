"""Checks tokens like PostgREST, which requires less of them than Supabase's other services.

Neither an expiry nor a role is required; without a role, it is anon. `exp`, `nbf` and `iat`, if present, must
be numbers, and are compared with 30 s of tolerance. (PostgREST 14.9, `Auth/Jwt.hs`, `checkForErrors` and
`parseClaims`.)
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from priorityd.daemon.sandbox.keys import Flaw, InvalidToken
from priorityd.daemon.sandbox.rest.errors import ApiError

if TYPE_CHECKING:
    from priorityd.daemon.sandbox.keys import Keys

_SKEW_SECONDS = 30
_ANONYMOUS = "anon"


def caller(keys: Keys, token: str) -> tuple[str, dict[str, Any]]:
    """The role and the claims of the token. Raises `ApiError`."""
    try:
        claims = keys.decode(token)
    except InvalidToken as flaw:
        raise _not_decoded(flaw, token) from flaw
    _check(claims, time.time())
    role = claims.get("role", _ANONYMOUS)
    return role, claims | {"role": role}


def _check(claims: dict[str, Any], now: float) -> None:
    for claim, message in (
        ("exp", "JWT expired"),
        ("nbf", "JWT not yet valid"),
        ("iat", "JWT issued at future"),
    ):
        at = claims.get(claim)
        if at is None:
            continue
        if not isinstance(at, int | float):
            raise ApiError(401, "PGRST303", f"The JWT '{claim}' claim must be a number")
        if (now - at if claim == "exp" else at - now) > _SKEW_SECONDS:
            raise ApiError(401, "PGRST303", message)


def _not_decoded(flaw: InvalidToken, token: str) -> ApiError:
    parts = len(token.split("."))
    match flaw.flaw:
        case Flaw.MALFORMED if not token:
            return ApiError(401, "PGRST301", "Empty JWT is sent in Authorization header")
        case Flaw.MALFORMED if parts != 3:
            return ApiError(401, "PGRST301", f"Expected 3 parts in JWT; got {parts}")
    details = "None of the keys was able to decode the JWT"
    return ApiError(401, "PGRST301", "No suitable key or wrong key type", details)
