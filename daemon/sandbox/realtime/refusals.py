"""The messages with which Realtime refuses tokens, at each of the three places where it checks them. Pure.

Source: `user_socket.ex`, `realtime_channel.ex` and `channels_authorization.ex` of supabase/realtime v2.129.8.
"""

from __future__ import annotations

import time

from priorityd.daemon.sandbox.keys import Flaw, InvalidToken

DATABASE_AWAY = '{:error, "Too many database timeouts"}'
_CLAIMS = "Fields `role` and `exp` are required in JWT"
_MALFORMED = "The token provided is not a valid JWT"
_SIGNATURE = "Failed to validate JWT signature"


def at_handshake(flaw: InvalidToken) -> str:
    """The `error` in the body of the 401."""
    match flaw.flaw:
        case Flaw.SIGNATURE:
            return _SIGNATURE
        case Flaw.EXPIRED:
            return "Token has expired"
        case Flaw.CLAIMS:
            return _CLAIMS
        case Flaw.MALFORMED:
            return _MALFORMED


def at_join(flaw: InvalidToken) -> str:
    """The reason in the reply to a join."""
    match flaw.flaw:
        case Flaw.SIGNATURE:
            return f"JwtSignatureError: {_SIGNATURE}"
        case Flaw.EXPIRED:
            return f"InvalidJWTToken: {at_expiry(flaw.expires_at)}"
        case Flaw.CLAIMS:
            return f"InvalidJWTToken: {_CLAIMS}"
        case Flaw.MALFORMED:
            return f"MalformedJWT: {_MALFORMED}"


def after_join(flaw: InvalidToken) -> str:
    """The message that ends a channel after a bad token was pushed to it."""
    match flaw.flaw:
        case Flaw.SIGNATURE:
            return ":signature_error"
        case Flaw.EXPIRED:
            return at_expiry(flaw.expires_at)
        case Flaw.CLAIMS:
            return _CLAIMS
        case Flaw.MALFORMED:
            return _MALFORMED


def at_expiry(expires_at: int | None) -> str:
    """The message about an expired token."""
    return f"Token has expired {max(0, int(time.time()) - (expires_at or 0))} seconds ago"
