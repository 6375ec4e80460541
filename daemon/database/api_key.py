"""The project's API key while the daemon runs: the one in use, and its replacement.

Keys are of two kinds. A legacy key (`service_role`) is a JSON web token: it goes into the `apikey` header,
and into `Authorization` as a bearer token. A secret key (`sb_secret_…`) is not a token. Supabase's gateway
finds it in `apikey` and replaces it with a token of the service role; as a bearer token it may reach
PostgREST, which answers "Expected 3 parts in JWT; got 1". Realtime takes either from the socket's URL, where
the gateway does the same; a join without an access token uses what opened the socket. (The gateway's
configuration and the page on API keys in supabase/supabase, `assign_access_token` in supabase/realtime.)

A token signed for a role of your own is accepted by PostgREST and Realtime, but the gateway also demands one
of the project's own keys: the gateway key, which needs no privileges.

A key is rotated by creating the next one, putting it where the settings are read from, and deleting the old
one. That file may be written a moment after the old key is deleted, so both keys are read again after each
refusal: it does not say which of them it is about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from priorityd.core.database.key_kind import claims_of
from priorityd.core.errors import ConfigurationError

log = structlog.stdlib.get_logger()

_NO_TOKEN: Final = "sb_"  # noqa: S105 - how keys that are not tokens begin
_PUBLISHABLE: Final = "sb_publishable_"


class KeyPair(NamedTuple):
    """The key, and the gateway key if there is one."""

    key: str
    gateway_key: str | None = None


class ApiKey:
    """See the module's docstring.

    `reread` returns the keys that the settings have now; `gateway_key` is sent to the gateway if the key is a
    token.
    """

    def __init__(
        self,
        key: str,
        *,
        reread: Callable[[], KeyPair] | None = None,
        gateway_key: str | None = None,
    ) -> None:
        self._in_use = KeyPair(key, gateway_key)
        self._reread = reread
        self._on_change: list[Callable[[KeyPair], None]] = []

    @property
    def in_use(self) -> KeyPair:
        """Both keys in use."""
        return self._in_use

    @property
    def key(self) -> str:
        """The key in use."""
        return self._in_use.key

    @property
    def access_token(self) -> str | None:
        """The key in use if it is a token, else None."""
        return None if self.key.startswith(_NO_TOKEN) else self.key

    @property
    def api_key(self) -> str:
        """The key for the gateway, sent in the header `apikey`."""
        gateway_key = self._in_use.gateway_key
        return gateway_key if gateway_key and self.access_token else self.key

    def on_change(self, call: Callable[[KeyPair], None]) -> None:
        """Call `call` with the keys whenever one is new, once they are in use."""
        self._on_change.append(call)

    def reload(self) -> bool:
        """Read the settings again; returns whether there is a new key."""
        keys = self._read()
        if keys == self._in_use:
            return False
        self._in_use = keys
        for call in self._on_change:
            call(keys)
        log.info("key_changed")
        return True

    def replaced(self, refused: KeyPair) -> bool:
        """Whether other keys than the refused ones are in use, already or from the settings just now."""
        return self._in_use != refused or self.reload()

    def _read(self) -> KeyPair:
        if self._reread is None:
            return self._in_use
        try:
            return self._reread()
        except (ConfigurationError, OSError, ValueError) as error:
            # The file may be being written right now.
            log.warning("settings_reload_failed", error=str(error))
            return self._in_use


def role_of(key: str) -> str:
    """The database role of a key, as far as the key itself shows, unverified; by default service_role."""
    if key.startswith(_PUBLISHABLE):
        return "anon"
    return str(claims_of(key).get("role", "service_role"))
