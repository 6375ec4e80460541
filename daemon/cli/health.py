"""`priorityd health`: asks the daemon's probe, for a container's HEALTHCHECK and for scripts."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import Final

import click

from priorityd.core.errors import ExitCode
from priorityd.daemon.cli.own_daemon import stranger
from priorityd.daemon.settings import Settings, load_settings

_TIMEOUT_SECONDS: Final = 5.0


def health_command(*, ready: bool) -> ExitCode:
    """0 if the daemon at the configured address is alive (or ready); else 1, with the reasons on stderr.

    It fails, too, if what answers is not priorityd, or belongs to a project other than that of the settings.
    """
    reasons = _reasons_against(load_settings(), "/readyz" if ready else "/livez")
    for reason in reasons:
        click.echo(f"priorityd: {reason}", err=True)
    return ExitCode.FAILED if reasons else ExitCode.DONE


def _reasons_against(settings: Settings, path: str) -> list[str]:
    host, port = settings.http_host, settings.http_port
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        return [f"no answer at {host}:{port}: {error}"]
    finally:
        connection.close()
    if other := stranger(settings, response.headers.get("Server", "")):
        return [f"{other} answers at {host}:{port}"]
    return [] if response.status == 200 else text.splitlines() or [f"{path} answers {response.status}"]
