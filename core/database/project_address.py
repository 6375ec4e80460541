"""What is wrong with a project's URL, judged by the URL itself and by what answers there without a key.

Source: Supabase's page "HTTP status codes", for 402, 540 and 544
(supabase.com/docs/guides/platform/http-status-codes, 2026). That a call without a key is refused in JSON, by
PostgREST or by the gateway before it, is in `tests/sandbox/BELIEFS.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_DASHBOARDS: Final = ("supabase.com", "www.supabase.com", "app.supabase.com", "app.supabase.io")
_PROJECT_PAGE: Final = re.compile(r"/project/([a-z0-9]+)")
_DATABASE_HOST: Final = re.compile(r"db\.([a-z0-9]+)\.supabase\.co")
_PROJECT_HOST: Final = re.compile(r"([a-z0-9]+)\.supabase\.co")
_API_PATH: Final = re.compile(r"/(?:rest|realtime|auth|storage|functions|graphql)(?:/v\d.*)?$")
_BY_STATUS: Final = {
    402: (
        "the project is restricted: it is over a quota, or a bill is unpaid",
        "Settle it on the organization's billing page; Supabase then lifts the restriction.",
    ),
    407: ("the proxy requires a user name and a password", "Put both into the URL in HTTPS_PROXY."),
    540: ("the project is paused", "Resume it on the project's page in Supabase's dashboard."),
}
_GATEWAY_STATUSES: Final = range(500, 600)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, what to do about it, and the URL to set instead where it is known."""

    text: str
    remedy: str
    url: str = ""


def reference_of(url: str) -> str | None:
    """The reference of a hosted project, from its host; None for any other project."""
    found = _PROJECT_HOST.fullmatch(urlsplit(url).hostname or "")
    return found[1] if found else None


def judge_address(url: str) -> Fault | None:
    """What is wrong with the URL itself; None if nothing is."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    origin = f"{parts.scheme}://{parts.netloc}"
    if host in _DASHBOARDS:
        page = _PROJECT_PAGE.search(parts.path)
        right = f"https://{page[1]}.supabase.co" if page else ""
        return Fault(f"{url} is a page of Supabase's dashboard", "Set the URL of the project itself.", right)
    if database := _DATABASE_HOST.fullmatch(host):
        right = f"https://{database[1]}.supabase.co"
        return Fault(f"{host} is the host of the project's database", "Set the URL of the project.", right)
    if parts.path and (_API_PATH.search(parts.path) or reference_of(url)):
        right = origin if reference_of(url) else origin + _API_PATH.sub("", parts.path)
        text = f"{url} has a path, and clients add {parts.path} themselves"
        return Fault(text, "Set the URL without that path.", right)
    return None


def judge_answer(
    url: str, status: int, *, in_json: bool, title: str = "", location: str = ""
) -> Fault | None:
    """What the answer to a call without a key shows to be wrong; None if it is Supabase's.

    `in_json`: the body is a JSON object. `title` is that of a web page, `location` where a redirect leads.
    """
    if status in _BY_STATUS:
        text, remedy = _BY_STATUS[status]
        return Fault(f"{url} answers {status}: {text}", remedy)
    if 300 <= status < 400:
        return _redirected(url, status, location)
    if status in _GATEWAY_STATUSES and not (in_json and status == 500):
        text = f"{url} answers {status}: the gateway in front of the project can't reach it"
        return Fault(text, "Wait for a minute, then look at the project's page.")
    if in_json:
        return None
    page = f"a web page ({title!r:.80})" if title else "something that is not JSON"
    parts = urlsplit(url)
    right = f"{parts.scheme}://{parts.netloc}" if parts.path else ""
    return Fault(
        f"{url} is not Supabase's API: it answers with {page}, status {status}",
        "Copy the project's URL again from its API settings; if it is right, something in between "
        "answers instead.",
        right,
    )


def _redirected(url: str, status: int, location: str) -> Fault:
    parts = urlsplit(location)
    moved = parts.scheme in ("http", "https") and bool(parts.netloc) and not url.startswith(location)
    right = f"{parts.scheme}://{parts.netloc}{_API_PATH.sub('', parts.path)}" if moved else ""
    return Fault(
        f"{url} answers {status}, a redirect to {location or 'nowhere'}; calls do not follow redirects",
        "Set the URL that it leads to, if that is the project's.",
        right.rstrip("/"),
    )
