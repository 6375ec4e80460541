"""The sandbox's API keys, of both kinds that a project has.

The legacy keys, `anon` and `service_role`, are HS256 JSON web tokens. The newer ones (`sb_publishable_…` and
`sb_secret_…`) are not tokens: the gateway looks them up and replaces them by a token of their role. There may
be several secret keys, and deleting one leaves the others valid; that is how keys are rotated.

The signing secret is generated at each start and kept in memory only, so the keys of one run are useless in
the next, or in a real project.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import jwt

_ALGORITHM = "HS256"
_LIFETIME_SECONDS = 10 * 365 * 24 * 3600


class Flaw(Enum):
    """Why a token is refused."""

    MALFORMED = "malformed"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    CLAIMS = "claims"


class InvalidToken(Exception):  # noqa: N818 - a verdict on a key, not a failure of the server
    """A token that is not accepted; `expires_at` is its `exp` claim when that is the flaw."""

    def __init__(self, flaw: Flaw, expires_at: int | None = None) -> None:
        super().__init__(flaw.value)
        self.flaw = flaw
        self.expires_at = expires_at


@dataclass(frozen=True)
class Claims:
    """What a valid token says."""

    role: str
    expires_at: int
    everything: dict[str, Any]


@dataclass(frozen=True)
class Keys:
    """The signing secret, the two legacy keys made with it, and the newer keys; none shows in a traceback."""

    secret: str = field(repr=False)
    anon: str = field(repr=False)
    service_role: str = field(repr=False)
    publishable: str = field(repr=False, default_factory=lambda: _opaque("publishable"))
    secret_keys: list[str] = field(repr=False, default_factory=lambda: [_opaque("secret")])

    @classmethod
    def create(cls) -> Keys:
        """New keys from a new secret."""
        secret = secrets.token_hex(32)
        return cls(
            secret, _sign(secret, _standard_claims("anon")), _sign(secret, _standard_claims("service_role"))
        )

    def sign(self, claims: dict[str, Any]) -> str:
        """A token with exactly these claims."""
        return _sign(self.secret, claims)

    def create_secret_key(self) -> str:
        """Another secret key, valid until it is deleted."""
        key = _opaque("secret")
        self.secret_keys.append(key)
        return key

    def delete_secret_key(self, key: str) -> None:
        """Stop accepting this key."""
        self.secret_keys.remove(key)

    def token_of(self, api_key: str) -> str | None:
        """The token that an API key stands for, None if it is not a key of this project.

        Like the gateway, this compares keys and does not verify them.
        """
        tokens = {self.anon: self.anon, self.service_role: self.service_role, self.publishable: self.anon}
        tokens |= dict.fromkeys(self.secret_keys, self.service_role)
        # In constant time, so that the time does not reveal how much of a key was right.
        matching = [key for key in tokens if secrets.compare_digest(api_key.encode(), key.encode())]
        return tokens[matching[0]] if matching else None

    def decode(self, token: str) -> dict[str, Any]:
        """The claims of a token signed with the secret. Raises `InvalidToken`."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self.secret, algorithms=[_ALGORITHM], options=_CHECK_SIGNATURE_ONLY
            )
        except jwt.InvalidSignatureError as error:
            raise InvalidToken(Flaw.SIGNATURE) from error
        except jwt.InvalidTokenError as error:
            raise InvalidToken(Flaw.MALFORMED) from error
        return claims

    def verify(self, token: str) -> Claims:
        """The claims of a token, as Realtime requires them: with `role` and `exp`.

        Raises `InvalidToken`.
        """
        return _checked(self.decode(token))


# `exp` is compared below, so that the error can say which value has expired.
_CHECK_SIGNATURE_ONLY: Any = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _checked(claims: dict[str, Any]) -> Claims:
    role, expires_at = claims.get("role"), claims.get("exp")
    if not isinstance(role, str) or not isinstance(expires_at, int | float):
        raise InvalidToken(Flaw.CLAIMS)
    if expires_at <= time.time():
        raise InvalidToken(Flaw.EXPIRED, int(expires_at))
    return Claims(role, int(expires_at), claims)


def _standard_claims(role: str) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": "supabase-sandbox", "role": role, "iat": now, "exp": now + _LIFETIME_SECONDS}


def is_opaque(token: str) -> bool:
    """Whether this looks like a key that is not a token."""
    return token.startswith("sb_")


def _opaque(kind: str) -> str:
    return f"sb_{kind}_{secrets.token_urlsafe(24)}"


def _sign(secret: str, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, secret, algorithm=_ALGORITHM)
