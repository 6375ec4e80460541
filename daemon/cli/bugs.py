"""Reports an error that no command expects: in a line, and with a traceback only at level debug."""

from __future__ import annotations

from typing import Final

import structlog

from priorityd.core.errors import ConfigurationError, ExitCode
from priorityd.daemon.cli.output import say
from priorityd.daemon.logs import configure_logs, redact
from priorityd.daemon.settings import load_settings, proxy_passwords

log = structlog.stdlib.get_logger()

_LONGEST: Final = 300


def report_bug(error: Exception) -> ExitCode:
    """Report it, without secrets; returns the exit code."""
    try:
        settings = load_settings()
        configure_logs(settings.log_format, settings.log_level, (*settings.secrets, *proxy_passwords()))
        log.debug("command_failed", exc_info=error)
    except ConfigurationError:
        pass  # and there is no level to log at
    say(
        f"{_words(error)}. This is a bug in priorityd: please report it, with the traceback that "
        "PRIORITYD_LOG_LEVEL=debug shows."
    )
    return ExitCode.FAILED


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(redact(str(error)).split())
    return f"{type(error).__name__}: {text}"[:_LONGEST] if text else type(error).__name__
