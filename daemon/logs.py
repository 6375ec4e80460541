"""Logs: structlog on stderr, one JSON object a line unless on a terminal; the standard library's too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Literal
from urllib.parse import quote_plus

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["auto", "json", "console"]

_MAX_FOREIGN_LENGTH = 500
"""Other libraries log whole frames when they can't read them; the beginning is enough to recognize one."""


_secrets: list[str] = []


def hide(*secrets: str) -> None:
    """Hide these from now on in every log line and in what `redact` returns."""
    for secret in secrets:
        _secrets.extend(form for form in (secret, quote_plus(secret)) if form and form not in _secrets)


def redact(text: str) -> str:
    """The text without the secrets."""
    for secret in _secrets:
        text = text.replace(secret, "[redacted]")
    return text


def configure_logs(log_format: LogFormat, level: str, secrets: tuple[str, ...] = ()) -> None:
    """Send every log line to stderr in the chosen format; `secrets` are hidden in all of them."""
    hide(*secrets)
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.dev.ConsoleRenderer | structlog.processors.JSONRenderer = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [
        structlog.processors.format_exc_info if not console else _unchanged,
        _redactor(renderer),
    ]
    # Our own lines bypass the standard library, which would take longer than everything else about them.
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Stderr(sys.stderr),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared, _shorten_foreign],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "websockets", "uvicorn", "hpack"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # The listener reports every failure of the connection itself, once. The null handler keeps Python from
    # printing unhandled records.
    realtime = logging.getLogger("realtime")
    realtime.propagate = level == "debug"
    realtime.addHandler(logging.NullHandler())


class _Stderr(structlog.WriteLogger):
    """Drops a line that can't be written, as the standard library does: work goes on without its log."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    debug = info = warning = error = critical = exception = msg


def _unchanged(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return event


def _shorten_foreign(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    text = str(event["event"])
    if len(text) > _MAX_FOREIGN_LENGTH:
        event["event"] = text[:_MAX_FOREIGN_LENGTH] + "…"
    return event


def _redactor(
    render: Callable[[WrappedLogger, str, EventDict], str | bytes],
) -> Callable[[WrappedLogger, str, EventDict], str]:
    """Render, then remove the secrets: whatever they were part of, it is text by then."""

    def render_and_redact(logger: WrappedLogger, method: str, event: EventDict) -> str:
        return redact(str(render(logger, method, event)))

    return render_and_redact
