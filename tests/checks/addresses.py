"""URLs that are not the project's, and gateways or proxies in front of a project that let nothing through."""

from __future__ import annotations

import socket

from tests.chaos.clock import HOUR_SECONDS, LIBRARY, Clock
from tests.checks.network import answer, gateway, projects_of
from tests.checks.situation import Act, Place, Situation, variables
from tests.support.daemon_process import free_port

_REFERENCE = "abcdefghijklmnopqrst"
_HOSTED = f"{_REFERENCE}.supabase.co"
_COPY = "Copy the project's URL again from its API settings"


def _path(place: Place) -> None:
    place.set(SUPABASE_URL=f"{place.right['SUPABASE_URL']}/rest/v1")


def _right_url(place: Place) -> None:
    place.set(SUPABASE_URL=place.right["SUPABASE_URL"])


def _on_the_internet(url: str) -> Act:
    async def act(place: Place) -> None:
        ways = await place.open.enter_async_context(projects_of({_HOSTED: place.port}, place.directory))
        place.set(SUPABASE_URL=url, **ways)

    return act


def _before_the_project(said: bytes) -> Act:
    """A gateway says this, until it lets through again."""

    async def act(place: Place) -> None:
        place.notes["says"] = said
        port = await place.open.enter_async_context(gateway(lambda _: place.notes.get("says") or place.port))
        place.set(SUPABASE_URL=f"http://127.0.0.1:{port}")

    return act


def _let_through(place: Place) -> None:
    place.notes.clear()


async def _moved(place: Place) -> None:
    location = f"{place.right['SUPABASE_URL']}/rest/v1/rpc/workspace_priority_schema_version"
    port = await place.open.enter_async_context(gateway(lambda _: answer(301, Location=location)))
    place.set(SUPABASE_URL=f"http://127.0.0.1:{port}")


def _nobody_listens(place: Place) -> None:
    place.set(SUPABASE_URL=f"http://127.0.0.1:{free_port()}")


async def _no_http(place: Place) -> None:
    port = await place.open.enter_async_context(gateway(lambda _: b"SSH-2.0-OpenSSH_9.2\r\n"))
    place.set(SUPABASE_URL=f"http://127.0.0.1:{port}")


def _unknown_name(place: Place) -> None:
    place.set(SUPABASE_URL="http://no-such-project.invalid")


def _https_to_http(place: Place) -> None:
    place.set(SUPABASE_URL=f"https://127.0.0.1:{place.port}")


def _silent(place: Place) -> None:
    listener = place.open.enter_context(socket.create_server(("127.0.0.1", 0)))
    place.set(SUPABASE_URL=f"http://127.0.0.1:{listener.getsockname()[1]}")


def _ahead(place: Place) -> None:
    clock = place.open.enter_context(Clock(place.directory))
    clock.jump(HOUR_SECONDS)
    place.notes["clock"] = clock
    place.set(**clock.settings)


def _set_clock(place: Place) -> None:
    place.notes["clock"].jump(-HOUR_SECONDS)


_PAGE = "<!doctype html><html><head><title>Welcome &amp; hello</title></head></html>"

SITUATIONS = [
    Situation(
        "the URL has a path",
        _path,
        "Supabase URL",
        "has a path, and clients add /rest/v1 themselves",
        78,
        "Set the URL without that path.",
        "export SUPABASE_URL=http://127.0.0.1:",
    ),
    Situation(
        "the URL is a page of the dashboard",
        _on_the_internet(f"https://supabase.com/dashboard/project/{_REFERENCE}/settings/api"),
        "Supabase URL",
        "is a page of Supabase's dashboard",
        78,
        "Set the URL of the project itself.",
        f"export SUPABASE_URL=https://{_HOSTED}",
    ),
    Situation(
        "the URL has the host of the database",
        _on_the_internet(f"https://db.{_HOSTED}"),
        "Supabase URL",
        f"db.{_HOSTED} is the host of the project's database",
        78,
        "Set the URL of the project.",
        f"export SUPABASE_URL=https://{_HOSTED}",
    ),
    Situation(
        "301: it has moved",
        _moved,
        "Supabase URL",
        "answers 301, a redirect to http://127.0.0.1:",
        78,
        "Set the URL that it leads to",
        "export SUPABASE_URL=http://127.0.0.1:",
    ),
    Situation(
        "402: the project is restricted",
        _before_the_project(
            answer(402, '{"message": "exceed_egress_quota"}', Content_Type="application/json")
        ),
        "Supabase URL",
        "answers 402: the project is restricted: it is over a quota, or a bill is unpaid",
        69,
        "billing page",
        "curl ",
        fix=_let_through,
    ),
    Situation(
        "404: another kind of server",
        _before_the_project(answer(404, "404 page not found\n")),
        "Supabase URL",
        "is not Supabase's API: it answers with something that is not JSON, status 404",
        69,
        _COPY,
        "curl ",
        fix=_right_url,
    ),
    Situation(
        "540: the project is paused",
        _before_the_project(answer(540, "<html></html>")),
        "Supabase URL",
        "answers 540: the project is paused",
        69,
        "Resume it on the project's page",
        "curl ",
        fix=_let_through,
    ),
    Situation(
        "502: the gateway can't reach the project",
        _before_the_project(answer(502, "<html></html>")),
        "Supabase URL",
        "answers 502: the gateway in front of the project can't reach it",
        69,
        "Wait for a minute",
        "curl ",
        fix=_let_through,
    ),
    Situation(
        "200: a web page",
        _before_the_project(answer(200, _PAGE, Content_Type="text/html")),
        "Supabase URL",
        "is not Supabase's API: it answers with a web page ('Welcome & hello'), status 200",
        69,
        _COPY,
        "curl ",
        fix=_right_url,
    ),
    Situation(
        "403: a company's proxy refuses",
        _before_the_project(answer(403, "<html><title>Blocked</title></html>")),
        "Supabase URL",
        "is not Supabase's API: it answers with a web page ('Blocked'), status 403",
        69,
        "something in between answers instead",
        "curl ",
        fix=_let_through,
    ),
    Situation(
        "nothing listens on the port",
        _nobody_listens,
        "Supabase URL",
        "can't be reached: ",
        69,
        "Compare SUPABASE_URL with the project's API settings",
        "curl ",
        fix=_right_url,
    ),
    Situation(
        "the server does not speak HTTP",
        _no_http,
        "Supabase URL",
        "the server there does not speak http",
        69,
        "Compare SUPABASE_URL with the project's API settings",
        "curl ",
        fix=_right_url,
    ),
    Situation(
        "the server does not answer",
        _silent,
        "Supabase URL",
        "can't be reached: no answer within 10 s",
        69,
        "Compare SUPABASE_URL with the project's API settings",
        "curl ",
        fix=_right_url,
    ),
    Situation(
        "the proxy's URL is not valid",
        variables(HTTP_PROXY="nonsense://user:not-for-the-screen@proxy"),
        "Supabase URL",
        "the proxy's URL is not valid: see HTTP_PROXY",
        78,
        "It must look like http://HOST:PORT.",
        "unset HTTP_PROXY",
    ),
    Situation(
        "the host name does not exist",
        _unknown_name,
        "Supabase URL",
        "the host name no-such-project.invalid does not exist",
        69,
        "a deleted project's name no longer exists",
        "curl ",
        fix=_right_url,
    ),
    Situation(
        "https, but the server speaks http",
        _https_to_http,
        "Supabase URL",
        "can't be reached: ",
        69,
        "Compare SUPABASE_URL with the project's API settings",
        "curl ",
        fix=_right_url,
    ),
]
if LIBRARY is not None:
    SITUATIONS.append(
        Situation(
            "this machine's clock is ahead",
            _ahead,
            "clock",
            "s ahead of Supabase's",
            0,
            "Synchronise it over the network",
            "timedatectl set-ntp true",
            fix=_set_clock,
            outcome="warning",
        )
    )
