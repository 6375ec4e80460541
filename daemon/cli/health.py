"""`priorityd health`: asks the daemon's own probe, for a container's HEALTHCHECK and for scripts."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import Final

import click

from priorityd.core.errors import ExitCode
from priorityd.daemon.settings import load_settings

_TIMEOUT_SECONDS: Final = 5.0


def health_command(*, ready: bool) -> ExitCode:
    """0 if the daemon at the configured address is alive (or ready); else 1, and its reasons on stderr."""
    settings = load_settings()
    reasons = _reasons_against(settings.http_host, settings.http_port, "/readyz" if ready else "/livez")
    for reason in reasons:
        click.echo(f"priorityd: {reason}", err=True)
    return ExitCode.FAILED if reasons else ExitCode.DONE


def _reasons_against(host: str, port: int, path: str) -> list[str]:
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        return [f"no answer at {host}:{port}: {error}"]
    finally:
        connection.close()
    return [] if response.status == 200 else text.splitlines() or [f"{path} answers {response.status}"]
