"""`priorityd check` on Inngest, against a stand-in for its REST API v2."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from priorityd.core.inngest.run_priority import run_priority_expression
from tests.support.daemon_process import free_port
from tests.support.event_api import EVENT_KEY, EventApi, serve_asgi
from tests.support.inngest_functions import SIGNING_KEY, Json, RestApi, function
from tests.support.stack import Stack


@dataclass
class Inngest:
    """Both APIs on one address, and `priorityd check` against them."""

    url: str
    stack: Stack
    rest: RestApi
    events: EventApi

    async def check(self, **settings: object) -> tuple[int, dict[str, Json]]:
        inngest = {
            "INNGEST_BASE_URL": self.url,
            "INNGEST_EVENT_KEY": EVENT_KEY,
            "INNGEST_SIGNING_KEY": SIGNING_KEY,
            "PRIORITYD_HTTP_PORT": free_port(),
        }
        code, out, err = await self.stack.priorityd("check", "--json", **(inngest | settings))
        assert SIGNING_KEY not in out + err
        findings = json.loads(out)["findings"]
        return code, {finding["step"]: finding for finding in findings}


@pytest.fixture
async def inngest(stack: Stack) -> AsyncIterator[Inngest]:
    rest, events = RestApi(), EventApi()
    routes = [Route("/v2/apps", rest.apps), Route("/v2/apps/{app}/functions", rest.of_app)]
    async with serve_asgi(Starlette(routes=[*routes, Mount("/", events)])) as url:
        yield Inngest(url, stack, rest, events)


async def test_an_expression_without_effect_is_named_with_the_one_that_has(inngest: Inngest) -> None:
    good = run_priority_expression()
    inngest.rest.functions = {
        "app": [
            function("sync", "capture/repository.sync.graphql", priority="event.data.priority"),
            function("reviews", "capture/pr.reviews", priority=good),
            function("comments", "capture/pr.comments"),
            function("mail", "mail/wanted"),
        ],
        "empty": [],
        "other": [function("nightly", "capture/repository.issues", priority=good, crons=("0 0 * * *",))],
    }
    code, findings = await inngest.check()
    finding = findings["run priority"]
    assert (code, finding["outcome"]) == (0, "warning")
    assert finding["text"] == (
        "priorities have no effect in app/sync ('event.data.priority' gives a decimal number, which counts as"
        " 0 for Inngest), app/comments (it has no priority.run)"
    )
    assert finding["remedy"].endswith(good)
    assert findings["Inngest event key"]["outcome"] == "ok"
    assert inngest.events.accepted == []


async def test_functions_that_heed_priorities_are_good(inngest: Inngest) -> None:
    inngest.rest.functions = {
        "app": [function("sync", "capture/repository.sync.graphql", priority=run_priority_expression())]
    }
    for form in ("score", "word"):
        _, findings = await inngest.check(PRIORITYD_EVENT_PRIORITY=form)
        assert (findings["run priority"]["outcome"], findings["run priority"]["remedy"]) == ("ok", "")


async def test_a_word_is_looked_for_where_words_are_sent(inngest: Inngest) -> None:
    by_word = function("sync", "capture/pr.reviews", priority="event.data.priority == 'high' ? 60 : 0")
    inngest.rest.functions = {"app": [by_word]}
    _, findings = await inngest.check(PRIORITYD_EVENT_PRIORITY="word")
    assert findings["run priority"]["outcome"] == "ok"
    _, findings = await inngest.check()
    assert findings["run priority"]["outcome"] == "warning"


async def test_functions_that_take_no_job_of_ours_are_reported(inngest: Inngest) -> None:
    inngest.rest.functions = {"app": [function("mail", "mail/wanted")]}
    _, findings = await inngest.check()
    assert findings["run priority"]["outcome"] == "warning"


async def test_what_was_not_looked_at_is_not_called_good(inngest: Inngest) -> None:
    _, findings = await inngest.check(INNGEST_SIGNING_KEY="")
    assert findings["run priority"]["outcome"] == "skipped"
    assert "INNGEST_SIGNING_KEY" in findings["run priority"]["text"]
    inngest.rest.lists_functions = False
    code, findings = await inngest.check()
    assert (code, findings["run priority"]["outcome"]) == (0, "skipped")


async def test_refused_keys_are_told_apart(inngest: Inngest) -> None:
    code, findings = await inngest.check(INNGEST_EVENT_KEY="wrong", INNGEST_SIGNING_KEY="signkey-test-00")
    assert code == 77
    assert findings["Inngest event key"]["outcome"] == "failed"
    assert "INNGEST_EVENT_KEY" in findings["Inngest event key"]["text"]
    assert findings["Inngest signing key"]["outcome"] == "failed"
    assert "INNGEST_SIGNING_KEY" in findings["Inngest signing key"]["text"]
    code, findings = await inngest.check(INNGEST_SIGNING_KEY="signkey-test-00")
    assert (code, findings["Inngest event key"]["outcome"]) == (77, "ok")


async def test_an_inngest_that_is_away_is_said_to_be(inngest: Inngest) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, findings = await inngest.check(INNGEST_BASE_URL=url)
    assert (code, findings["Inngest event key"]["outcome"]) == (69, "failed")
    assert findings["run priority"]["outcome"] == "skipped"
    for finding in (findings["Inngest event key"], findings["run priority"]):
        assert f"can't be reached at {url}:" in finding["text"]
    assert EVENT_KEY not in str(findings)


async def test_without_settings_for_inngest_nothing_is_said_of_it(inngest: Inngest) -> None:
    settings: dict[str, Any] = {"INNGEST_EVENT_KEY": "", "INNGEST_SIGNING_KEY": "", "INNGEST_BASE_URL": ""}
    _, findings = await inngest.check(**settings)
    assert not [step for step in findings if "Inngest" in step or step == "run priority"]


async def test_settings_that_send_nothing_are_told(inngest: Inngest) -> None:
    code, findings = await inngest.check(INNGEST_EVENT_KEY="")
    assert (code, findings["Inngest"]["outcome"]) == (0, "warning")
    assert findings["Inngest"]["text"].startswith(
        f"INNGEST_SIGNING_KEY and INNGEST_BASE_URL ({inngest.url}) are set, but no events"
    )
