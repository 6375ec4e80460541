"""Keys that are not the project's service_role key."""

from __future__ import annotations

import time

from priorityd.daemon.sandbox.keys import Keys
from tests.checks.network import projects_of
from tests.checks.situation import Act, Place, Situation
from tests.support.repository import ROOT

_REFERENCE = "abcdefghijklmnopqrst"
_ROLE_SQL = (ROOT / "deploy" / "sql" / "restricted_role.sql").read_text()
_UNDO_SQL = (ROOT / "deploy" / "sql" / "drop_restricted_role.sql").read_text()
_COPY = "Copy the service_role key (or a secret key) again from the project's API settings."
_EXPORT = "export SUPABASE_SERVICE_ROLE_KEY=…"
NOW = int(time.time())


def _key(of: str) -> Act:
    return lambda place: place.set(SUPABASE_SERVICE_ROLE_KEY=getattr(place.stack.server.keys, of))


def _literal(key: str) -> Act:
    return lambda place: place.set(SUPABASE_SERVICE_ROLE_KEY=key)


def _signed(keys: Keys, **claims: object) -> str:
    return keys.sign({"iss": "supabase", "role": "service_role", "iat": NOW, "exp": NOW + 3600} | claims)


def _expired(place: Place) -> None:
    key = _signed(place.stack.server.keys, iat=NOW - 7200, exp=1735907696)
    place.set(SUPABASE_SERVICE_ROLE_KEY=key)


def _of_another_secret(place: Place) -> None:
    place.set(SUPABASE_SERVICE_ROLE_KEY=_signed(Keys.create()))


async def _of_another_reference(place: Place) -> None:
    ways = await place.open.enter_async_context(
        projects_of({f"{_REFERENCE}.supabase.co": place.port}, place.directory)
    )
    key = _signed(place.stack.server.keys, ref="zyxwvutsrqponmlkjihg")
    place.set(SUPABASE_URL=f"https://{_REFERENCE}.supabase.co", SUPABASE_SERVICE_ROLE_KEY=key, **ways)


def _deleted(place: Place) -> None:
    keys = place.stack.server.keys
    key = keys.create_secret_key()
    keys.delete_secret_key(key)
    place.set(SUPABASE_SERVICE_ROLE_KEY=None, SUPABASE_SECRET_KEY=key)


def _anon_in_env_file(place: Place) -> None:
    place.set(SUPABASE_SERVICE_ROLE_KEY=None)
    (place.directory / ".env").write_text(f"SUPABASE_SECRET_KEY={place.stack.server.keys.anon}\n")


def use_own_role(place: Place) -> None:
    place.execute(_ROLE_SQL)
    place.open.callback(place.execute, _UNDO_SQL)
    place.set(SUPABASE_SERVICE_ROLE_KEY=_signed(place.stack.server.keys, role="priorityd"))


def _situation(name: str, wrong: Act, says: str, remedy: str = _COPY, command: str = _EXPORT) -> Situation:
    makes_role = wrong is use_own_role
    return Situation(name, wrong, "key and functions", says, 77, remedy, command, makes_role=makes_role)


SITUATIONS = [
    _situation("the anon key", _key("anon"), "it is the anon key, which is for browsers"),
    _situation(
        "the anon key, in .env",
        _anon_in_env_file,
        "SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SECRET_KEY: it is the anon key",
    ),
    _situation("a publishable key", _key("publishable"), "it is a publishable key, which is for browsers"),
    _situation(
        "a personal access token",
        _literal("sbp_0123456789abcdef0123456789abcdef01234567"),
        "it is a personal access token, for Supabase's management API",
    ),
    _situation(
        "Inngest's signing key", _literal("signkey-prod-0123456789abcdef"), "it is Inngest's signing key"
    ),
    _situation("an expired key", _expired, "it expired on 2025-01-03 at 12:34 UTC"),
    _situation(
        "another project's key, by its reference",
        _of_another_reference,
        "it is the key of another project, zyxwvutsrqponmlkjihg",
    ),
    _situation(
        "another project's key, or one from before the JWT secret was changed",
        _of_another_secret,
        "it belongs to another project, or is from before the JWT secret was changed",
    ),
    _situation(
        "a deleted secret key",
        _deleted,
        "it has the form of a secret key: it was deleted, or belongs to another project",
        command="export SUPABASE_SECRET_KEY=…",
    ),
    _situation(
        "something that is not a key",
        _literal("super-secret-jwt-token-with-at-least-32-characters"),
        "it has the form of neither a secret key (sb_secret_…) nor a service_role key (eyJ…)",
    ),
    _situation(
        "a role's own token without a gateway key",
        use_own_role,
        "it has the form of a key for the role priorityd",
        "The token of your own role, priorityd, must be accompanied by one of the project's keys",
        "export PRIORITYD_GATEWAY_KEY=…",
    ),
]
