"""`priorityd health`: asks the daemon's probe, for a container's HEALTHCHECK and for scripts."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Final
from urllib.parse import urlsplit

import click

from priorityd.core.errors import ExitCode
from priorityd.daemon.settings import load_settings

_TIMEOUT_SECONDS: Final = 5.0


def health_command(*, ready: bool) -> ExitCode:
    """0 if the daemon at the configured address is alive (or ready); else 1, with the reasons on stderr.

    It fails, too, if what answers is not priorityd, or belongs to a project other than that of the settings.
    """
    settings = load_settings()
    project = urlsplit(settings.supabase_url).netloc
    reasons = _reasons_against(
        settings.http_host, settings.http_port, "/readyz" if ready else "/livez", project
    )
    for reason in reasons:
        click.echo(f"priorityd: {reason}", err=True)
    return ExitCode.FAILED if reasons else ExitCode.DONE


def _reasons_against(host: str, port: int, path: str, project: str) -> list[str]:
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        return [f"no answer at {host}:{port}: {error}"]
    finally:
        connection.close()
    if stranger := _stranger(response, project):
        return [f"{stranger} answers at {host}:{port}"]
    return [] if response.status == 200 else text.splitlines() or [f"{path} answers {response.status}"]


def _stranger(response: HTTPResponse, project: str) -> str | None:
    """What answers, if it is not the daemon of this project."""
    server = response.headers.get("Server", "")
    if not server.startswith("priorityd/"):
        return f"not priorityd but {server!r}" if server else "something that is not priorityd"
    return None if server.endswith(f"({project})") else f"the priorityd of another project, {server},"
