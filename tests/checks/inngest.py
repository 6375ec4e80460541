"""Settings for Inngest that are half there or wrong, and functions that do not heed priorities."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount, Route

from priorityd.core.inngest.run_priority import run_priority_expression
from tests.checks.situation import Act, Place, Situation
from tests.support.daemon_process import free_port
from tests.support.event_api import EVENT_KEY, EventApi, serve_asgi
from tests.support.inngest_functions import SIGNING_KEY, RestApi, function

_EVENT_KEY = "export INNGEST_EVENT_KEY=…"
_HALF = "no events are sent without INNGEST_EVENT_KEY or INNGEST_DEV"
_HEEDS = "Set priority.run of these functions to: "


def _inngest(priority: str | None = None, **settings: object) -> Act:
    """Both of its APIs on one address, with a function of that priority.run; and these settings."""

    async def act(place: Place) -> None:
        rest = RestApi()
        place.notes["functions"] = rest.functions
        _deploy(place, priority or run_priority_expression())
        routes = [Route("/v2/apps", rest.apps), Route("/v2/apps/{app}/functions", rest.of_app)]
        application = Starlette(routes=[*routes, Mount("/", EventApi())])
        url = await place.open.enter_async_context(serve_asgi(application))
        usual = {
            "INNGEST_BASE_URL": url,
            "INNGEST_EVENT_KEY": EVENT_KEY,
            "INNGEST_SIGNING_KEY": SIGNING_KEY,
        }
        place.notes["url"] = url
        place.set(**(usual | settings))

    return act


def _deploy(place: Place, priority: str | None) -> None:
    place.notes["functions"]["app"] = [function("sync", "capture/repository.sync.graphql", priority=priority)]


async def _without_priority(place: Place) -> None:
    await _inngest()(place)  # type: ignore[misc]
    _deploy(place, None)


async def _away(place: Place) -> None:
    await _inngest(INNGEST_BASE_URL=f"http://127.0.0.1:{free_port()}")(place)  # type: ignore[misc]


def _right_url(place: Place) -> None:
    place.set(INNGEST_BASE_URL=place.notes["url"])


def _heed(place: Place) -> None:
    _deploy(place, run_priority_expression())


SITUATIONS = [
    Situation(
        "Inngest's signing key alone",
        _inngest(INNGEST_EVENT_KEY=None),
        "Inngest",
        "INNGEST_SIGNING_KEY and INNGEST_BASE_URL (http://127.0.0.1:",
        0,
        "Set it to queue jobs and announce changes",
        _EVENT_KEY,
        outcome="warning",
    ),
    Situation(
        "Inngest's URL alone",
        _inngest(INNGEST_EVENT_KEY=None, INNGEST_SIGNING_KEY=None),
        "Inngest",
        _HALF,
        0,
        "Set it to queue jobs and announce changes",
        _EVENT_KEY,
        outcome="warning",
    ),
    Situation(
        "Inngest's event key alone, so functions can't be checked",
        _inngest(INNGEST_SIGNING_KEY=None),
        "run priority",
        "the functions' priority.run can't be checked without INNGEST_SIGNING_KEY",
        0,
        "Set it to check that as well.",
        "export INNGEST_SIGNING_KEY=…",
        outcome="skipped",
    ),
    Situation(
        "a malformed signing key",
        _inngest(INNGEST_SIGNING_KEY="nonsense"),
        "settings",
        "INNGEST_SIGNING_KEY: must look like signkey-prod-0123abcd…",
        78,
        "Set it in the environment",
        "export INNGEST_SIGNING_KEY=…",
    ),
    Situation(
        "a wrong event key",
        _inngest(INNGEST_EVENT_KEY="of-another-environment"),
        "Inngest event key",
        "Inngest refused the event key (INNGEST_EVENT_KEY)",
        77,
        "Copy the event key again from Inngest's dashboard",
        _EVENT_KEY,
    ),
    Situation(
        "the signing key instead of the event key",
        _inngest(INNGEST_EVENT_KEY=SIGNING_KEY),
        "Inngest event key",
        "INNGEST_EVENT_KEY: it is a signing key, not an event key",
        77,
        "Copy the event key from Inngest's dashboard",
        _EVENT_KEY,
    ),
    Situation(
        "a wrong signing key",
        _inngest(INNGEST_SIGNING_KEY="signkey-test-00"),
        "Inngest signing key",
        "Inngest refused the signing key (INNGEST_SIGNING_KEY, 401), at http://127.0.0.1:",
        77,
        "Copy the signing key again from Inngest's dashboard",
        "export INNGEST_SIGNING_KEY=…",
    ),
    Situation(
        "nothing at Inngest's URL",
        _away,
        "Inngest event key",
        "Inngest can't be reached at http://127.0.0.1:",
        69,
        "Is that the address of Inngest? It comes from INNGEST_BASE_URL.",
        "priorityd check",
        fix=_right_url,
    ),
    Situation(
        "a function without priority.run",
        _without_priority,
        "run priority",
        "priorities have no effect in app/sync (it has no priority.run)",
        0,
        _HEEDS,
        "priorityd check",
        fix=_heed,
        outcome="warning",
    ),
    Situation(
        "a function whose priority.run is a decimal number",
        _inngest("event.data.priority"),
        "run priority",
        "'event.data.priority' gives a decimal number, which counts as 0 for Inngest",
        0,
        _HEEDS,
        "priorityd check",
        fix=_heed,
        outcome="warning",
    ),
    Situation(
        "a function whose priority.run is misspelt",
        _inngest("int(event.data.priorty)"),
        "run priority",
        "priorities have no effect in app/sync ('int(event.data.priorty)'",
        0,
        _HEEDS,
        "priorityd check",
        fix=_heed,
        outcome="warning",
    ),
]
