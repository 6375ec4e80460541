"""What kind of key was given as the service_role key, as far as the key itself shows.

Sources: Supabase's page "API keys" for the prefixes (supabase.com/docs/guides/api/api-keys, 2026); a legacy
key has the claims `iss`, `ref`, `role`, `iat` and `exp`. Inngest's key: its SDK 0.5.19,
`_internal/transforms.py`.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any, Final

_PREFIXES: Final = {
    "sb_publishable_": "a publishable key, which is for browsers",
    "sbp_": "a personal access token, for Supabase's management API",
    "signkey-": "Inngest's signing key",
    "postgres": "the URL of a database",
    "http": "a URL",
}
_STRANGERS: Final = {"anon": "the anon key, which is for browsers", "authenticated": "the token of a user"}
_SECRET_KEY: Final = "sb_secret_"  # noqa: S105 - how they begin


def claims_of(key: str) -> dict[str, Any]:
    """The claims of a token, unverified; empty for anything else."""
    try:
        payload = key.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def why_useless(key: str, reference: str | None, now: datetime) -> str | None:
    """Why this can't be the right key, whatever the server says; None if it may be right.

    `reference` is the project's if it is hosted by Supabase, else None.
    """
    for prefix, kind in _PREFIXES.items():
        if key.startswith(prefix):
            return f"it is {kind}"
    claims = claims_of(key)
    role, of, expires = claims.get("role"), claims.get("ref"), claims.get("exp")
    if role in _STRANGERS:
        return f"it is {_STRANGERS[role]}"
    if reference and isinstance(of, str) and of != reference:
        return f"it is the key of another project, {of}"
    if isinstance(expires, int | float) and expires <= now.timestamp():
        return f"it expired on {datetime.fromtimestamp(expires, UTC):%Y-%m-%d at %H:%M UTC}"
    return None


def why_refused(key: str) -> str:
    """The likely reason why a key that looks right is refused."""
    if key.startswith(_SECRET_KEY):
        return "it has the form of a secret key: it was deleted, or belongs to another project"
    claims = claims_of(key)
    if not claims:
        return "it has the form of neither a secret key (sb_secret_…) nor a service_role key (eyJ…)"
    role = claims.get("role", "anon")
    return (
        f"it has the form of a key for the role {role}: it belongs to another project, or "
        "is from before the JWT secret was changed, or legacy keys have been disabled"
    )
