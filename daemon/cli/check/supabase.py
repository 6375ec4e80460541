"""The part of `priorityd check` about Supabase: the URL, the key, then the database and the stream."""

from __future__ import annotations

import html
import os
import re
import shlex
import socket
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from priorityd.core.database.key_kind import why_refused, why_useless
from priorityd.core.database.project_address import Fault, judge_address, judge_answer, reference_of
from priorityd.core.database.schema import VERSION_FUNCTION, SchemaVersion, demand_version
from priorityd.core.errors import ContractError, ExitCode, KeyRefusedError, PriorityError, TransientError
from priorityd.daemon.bounded_client import BoundedClient
from priorityd.daemon.cli.check.database import database_findings, in_part, migrations_finding, too_old_or_new
from priorityd.daemon.cli.check.guard import from_call, guarded
from priorityd.daemon.cli.check.stream import stream_findings
from priorityd.daemon.cli.finding import Finding
from priorityd.daemon.clock import utc_now
from priorityd.daemon.database.api_key import ApiKey, role_of
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.settings import Settings

_URL: Final = "Supabase URL"
_KEY: Final = "key and functions"
_PATIENCE_SECONDS: Final = 10.0
_SKEW_SECONDS: Final = 30
"""The clock skew that PostgREST allows in tokens (14.9, `Auth/Jwt.hs`, `allowedSkewSeconds`)."""
_KEY_NAMES: Final = ("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY")
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
_TITLE: Final = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)


async def supabase_findings(settings: Settings) -> AsyncIterator[Finding]:
    """One step after the other, until one fails that the rest depend on."""
    reached = True
    async for finding in guarded(_URL, _address_findings(settings)):
        yield finding
        reached = reached and finding.outcome != "failed"
    useless = reached and why_useless(_key_of(settings), reference_of(settings.supabase_url), utc_now())
    if useless:
        yield _refused(settings, useless)
    if not reached or useless:
        return
    api_key = ApiKey(_key_of(settings), gateway_key=settings.plain_gateway_key)
    async with open_store(settings.supabase_url, api_key) as store:
        async for finding in guarded(_KEY, _behind_the_key(settings, store)):
            yield finding


async def _behind_the_key(settings: Settings, store: Store) -> AsyncIterator[Finding]:
    try:
        version = await store.schema_version()
    except KeyRefusedError as error:
        yield _refused(settings, f"{error}; {why_refused(_key_of(settings))}")
        return
    except PriorityError as error:
        yield from_call(_KEY, error)
        return
    yield Finding(_KEY, "ok", "the key is accepted and the functions exist")
    if old_or_new := _old_or_new(version):
        yield old_or_new
        return
    try:
        database = await store.check()
    except TransientError as error:
        yield in_part(version, error) if error.reason == "schema_cache" else from_call(_KEY, error)
        return
    yield migrations_finding(database)
    async for finding in guarded("privileges", database_findings(store, database)):
        yield finding
    async for finding in guarded("change stream", stream_findings(settings, store, database)):
        yield finding


def _old_or_new(version: SchemaVersion) -> Finding | None:
    try:
        demand_version(version)
    except ContractError as error:
        return too_old_or_new(version, error)
    return None


# ---------------------------------------------------------------------------------------------------------
# The URL
# ---------------------------------------------------------------------------------------------------------


async def _address_findings(settings: Settings) -> AsyncIterator[Finding]:
    url = settings.supabase_url
    fault = judge_address(url)
    if fault is None:
        try:
            # Without the key: the server there may not be Supabase's.
            async with BoundedClient(total_seconds=_PATIENCE_SECONDS, timeout=_PATIENCE_SECONDS) as client:
                response = await client.get(f"{url}/rest/v1/rpc/{VERSION_FUNCTION}")
        except (httpx.HTTPError, httpx.InvalidURL, TransientError) as error:
            yield _unreachable(url, error)
            return
        except ValueError:
            # The error's own text quotes the URL, password included.
            yield _bad_proxy()
            return
        fault = _judged(url, response)
    if fault:
        yield _faulty(settings, fault)
        return
    yield Finding(_URL, "ok", f"{url} answers")
    skew = _skew_seconds(response)
    if abs(skew) > _SKEW_SECONDS:
        yield Finding(
            "clock",
            "warning",
            f"this machine's clock is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} Supabase's",
            "Synchronise it over the network: certificates, tokens and times in the log depend on it.",
            "timedatectl set-ntp true",
        )


def _judged(url: str, response: httpx.Response) -> Fault | None:
    try:
        in_json = isinstance(response.json(), dict)
    except (ValueError, RecursionError):
        in_json = False
    title = _TITLE.search(response.text[:100_000])
    return judge_answer(
        url,
        response.status_code,
        in_json=in_json,
        title=html.unescape(title[1]).strip() if title else "",
        location=response.headers.get("Location", ""),
    )


def _faulty(settings: Settings, fault: Fault) -> Finding:
    command = f"export SUPABASE_URL={shlex.quote(fault.url)}" if fault.url else _curl(settings.supabase_url)
    code = ExitCode.CONFIGURATION if fault.url else ExitCode.UNAVAILABLE
    return Finding(_URL, "failed", fault.text, fault.remedy, command, code)


def _unreachable(url: str, error: Exception) -> Finding:
    host = httpx.URL(url).host
    why = str(error) or type(error).__name__
    remedy = "Compare SUPABASE_URL with the project's API settings; behind a proxy, set HTTPS_PROXY."
    if isinstance(error, httpx.TimeoutException):
        why = f"no answer within {_PATIENCE_SECONDS:.0f} s"
    elif isinstance(error, httpx.ConnectError) and _is_unknown(host):
        why = f"the host name {host} does not exist"
        remedy = (
            "Compare SUPABASE_URL with the project's API settings; a deleted project's name no longer exists."
        )
    elif "CERTIFICATE_VERIFY_FAILED" in why:
        remedy = "If you have your own certificate authority, set SSL_CERT_FILE to its certificate."
    elif isinstance(error, httpx.RemoteProtocolError):
        why = f"the server there does not speak {httpx.URL(url).scheme}: {why}"
    text = f"{url} can't be reached: {why}"
    return Finding(_URL, "failed", text, remedy, _curl(url), ExitCode.UNAVAILABLE)


def _bad_proxy() -> Finding:
    names = " ".join(sorted(name for name in os.environ if name.lower() in _PROXIES))
    return Finding(
        _URL,
        "failed",
        f"the proxy's URL is not valid: see {names}",
        "It must look like http://HOST:PORT. Correct it or unset it.",
        f"unset {names}",
        ExitCode.CONFIGURATION,
    )


def _is_unknown(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return True
    return False


def _curl(url: str) -> str:
    return f"curl -sS -o /dev/null -w '%{{http_code}}\\n' {shlex.quote(f'{url}/rest/v1/')}"


def _skew_seconds(response: httpx.Response) -> float:
    """How far this machine's clock is ahead; 0 if the answer has no date."""
    try:
        there = parsedate_to_datetime(response.headers["Date"])
        age = float(response.headers.get("Age", 0))
        return (utc_now() - there).total_seconds() - age
    except (KeyError, ValueError, TypeError):
        return 0.0


# ---------------------------------------------------------------------------------------------------------
# The key
# ---------------------------------------------------------------------------------------------------------


def _key_of(settings: Settings) -> str:
    return settings.supabase_key.get_secret_value()


def _refused(settings: Settings, why: str) -> Finding:
    # From .env or a secrets directory it may have either name.
    in_environment = [name for name in _KEY_NAMES if os.environ.get(name)]
    names = in_environment[:1] or _KEY_NAMES
    remedy = "Copy the service_role key (or a secret key) again from the project's API settings."
    command = f"export {names[0]}=…"
    role = role_of(_key_of(settings))
    if role not in ("service_role", "anon", "authenticated") and settings.gateway_key is None:
        remedy = (
            f"The token of your own role, {role}, must be accompanied by one of the project's keys: the anon "
            "key or a publishable key."
        )
        command = "export PRIORITYD_GATEWAY_KEY=…"
    return Finding(_KEY, "failed", f"{' or '.join(names)}: {why}", remedy, command, ExitCode.KEY_REFUSED)
