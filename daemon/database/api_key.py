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
one. That file may be written a moment after the old key is deleted, so it is read again after each refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from priorityd.core.database.key_kind import claims_of
from priorityd.core.errors import ConfigurationError

log = structlog.stdlib.get_logger()

_NO_TOKEN: Final = "sb_"  # noqa: S105 - how keys that are not tokens begin
_PUBLISHABLE: Final = "sb_publishable_"


class ApiKey:
    """See the module's docstring.

    `reread` returns the key that the settings have now; `gateway_key` is sent to the gateway if the key is a
    token.
    """

    def __init__(
        self,
        key: str,
        *,
        reread: Callable[[], str] | None = None,
        gateway_key: str | None = None,
    ) -> None:
        self._key = key
        self._gateway_key = gateway_key
        self._reread = reread
        self._on_change: list[Callable[[str], None]] = []

    @property
    def key(self) -> str:
        """The key in use."""
        return self._key

    @property
    def access_token(self) -> str | None:
        """The key in use if it is a token, else None."""
        return None if self._key.startswith(_NO_TOKEN) else self._key

    @property
    def api_key(self) -> str:
        """The key for the gateway, sent in the header `apikey`."""
        return self._gateway_key if self._gateway_key and self.access_token else self._key

    def on_change(self, call: Callable[[str], None]) -> None:
        """Call `call` with each new key, once it is in use."""
        self._on_change.append(call)

    def reload(self) -> bool:
        """Read the settings again; returns whether there is a new key."""
        key = self._read()
        if key == self._key:
            return False
        self._key = key
        for call in self._on_change:
            call(key)
        log.info("key_changed")
        return True

    def replaced(self, refused: str) -> bool:
        """Whether another key than the refused one is in use, already or from the settings just now."""
        return self._key != refused or self.reload()

    def _read(self) -> str:
        if self._reread is None:
            return self._key
        try:
            return self._reread()
        except (ConfigurationError, OSError, ValueError) as error:
            # The file may be being written right now.
            log.warning("settings_reload_failed", error=str(error))
            return self._key


def role_of(key: str) -> str:
    """The database role of a key, as far as the key itself shows, unverified; by default service_role."""
    if key.startswith(_PUBLISHABLE):
        return "anon"
    return str(claims_of(key).get("role", "service_role"))
