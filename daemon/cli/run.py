"""`priorityd run`."""

from __future__ import annotations

import anyio
import structlog

from priorityd.core.errors import ExitCode, PriorityError, first_of
from priorityd.daemon.app import run_daemon
from priorityd.daemon.logs import configure_logs
from priorityd.daemon.settings import load_settings, proxy_passwords

log = structlog.stdlib.get_logger()


def run_daemon_command() -> ExitCode:
    """Run the daemon; the exit code tells a supervisor whether a restart can help."""
    settings = load_settings()
    secrets = (*settings.secrets, *proxy_passwords())
    configure_logs(settings.log_format, settings.log_level, secrets)
    try:
        return anyio.run(run_daemon, settings)
    except* PriorityError as group:
        error = first_of(group)
        log.critical("fatal", error=str(error), exit_code=int(error.exit_code))
        return_code = error.exit_code
    except* Exception as group:
        # A bug. Python's own traceback would not be JSON, and might quote a key.
        log.critical("fatal", error="a bug", exit_code=int(ExitCode.FAILED), exc_info=group)
        return_code = ExitCode.FAILED
    return return_code
