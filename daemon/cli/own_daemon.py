"""Tells the daemon of this project from whatever else may answer at its address."""

from __future__ import annotations

from urllib.parse import urlsplit

from priorityd.daemon.settings import Settings


def stranger(settings: Settings, server: str) -> str | None:
    """What answers, by its header `Server`; None if it is the daemon of the settings' project."""
    if not server.startswith("priorityd/"):
        return f"{server!r}, which is not priorityd," if server else "a program that is not priorityd"
    project = urlsplit(settings.supabase_url).netloc
    return None if server.endswith(f"({project})") else f"the priorityd of another project, {server},"
