"""The status page: one self-contained HTML document, made from a report and nothing else.

It describes the situation in words before it shows any figures, and works without scripts and without other
files. With scripts it fetches itself every few seconds and replaces only what has changed, so that nothing
flickers, open details stay open, and a screen reader speaks only when problems come and go.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from priorityd.core.priorities import PRIORITIES
from priorityd.daemon.status.page import words
from priorityd.daemon.status.page.charts import CHANGE_SCALE, LATENCY_SCALE, bands, charts
from priorityd.daemon.status.page.runbook import entries
from priorityd.daemon.status.report import Report

_HERE: Final = Path(__file__).parent
_STYLE: Final = (_HERE / "style.css").read_text()
_SCRIPT: Final = (_HERE / "refresh.js").read_text()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing but what is in the page itself may run, and nothing is loaded from elsewhere."""

_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(_HERE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {
    "ago": words.ago,
    "cause": words.cause,
    "clock": words.clock,
    "duration": words.duration,
    "number": words.number,
    "outage": words.outage,
    "run_cause": words.run_cause,
    "sentences": words.sentences,
    "workspaces": words.workspaces,
}
# Both come from this package: they are trusted, and must be served exactly as they are hashed above.
_ENVIRONMENT.globals |= {"style": Markup(_STYLE), "script": Markup(_SCRIPT)}  # noqa: S704


def render(report: Report, now: datetime) -> str:
    """The page for a report; times such as "12 s ago" are relative to `now`."""
    return _ENVIRONMENT.get_template("status.html.j2").render(
        report=report,
        now=now,
        priorities=PRIORITIES,
        runbook=entries(),
        stream=words.STREAM,
        charts=charts(report.history),
        bands=bands(report),
        latency_scale=LATENCY_SCALE,
        change_scale=CHANGE_SCALE,
    )


def render_busy() -> str:
    """The page while the daemon's event loop does not answer."""
    return _ENVIRONMENT.get_template("busy.html.j2").render()
