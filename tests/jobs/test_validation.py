"""Which jobs can't be queued: the same jobs for the same reasons, whichever way they go."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from priorityd.core.jobs.events import Job
from priorityd.core.jobs.validation import split_jobs, why_data_refused
from priorityd.daemon.database.store import open_store
from priorityd.daemon.inngest.sender import open_event_sender
from priorityd.daemon.jobs.direct_queue import DirectQueue
from priorityd.daemon.jobs.ordered_queue import OrderedQueue
from tests.support.application import Application
from tests.support.servers import Servers, start_servers

if TYPE_CHECKING:
    from tests.support.database import Database
    from tests.support.inngest import StandIn

REPOSITORY = UUID("11111111-1111-4111-8111-111111111111")


def nested(levels: int, kind: type = dict) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value} if kind is dict else [value]
    return {"deep": value}


def circle() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["a"] = [data, data]
    return data


REFUSED: dict[str, tuple[dict[Any, Any], str]] = {
    "NUL": ({"a": "x\0"}, "has data with the character NUL, which PostgreSQL can't hold"),
    "NUL in a key": ({"a": {"x\0": 1}}, "has data with the character NUL, which PostgreSQL can't hold"),
    "surrogate": ({"a": ["\ud800"]}, "has data with an unpaired surrogate, which is not valid Unicode"),
    "NaN": ({"a": float("nan")}, "has data with a number that is NaN or infinite"),
    "infinite": ({"a": float("-inf")}, "has data with a number that is NaN or infinite"),
    "large": ({"a": 10**400}, "has data with a number that is too large"),
    "deep": (nested(3000), "has data that is nested deeper than 100 levels"),
    "deep lists": (nested(101, list), "has data that is nested deeper than 100 levels"),
    "circle": (circle(), "has data that is nested deeper than 100 levels"),
    "no JSON": ({"a": dt.date(2025, 1, 1)}, "has data that is not JSON: date"),
    "no text": ({7: 1}, "has data with a key that is not text: 7"),
}


@pytest.mark.parametrize(("data", "why"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_queued_is_refused_with_its_reason(data: dict[Any, Any], why: str) -> None:
    assert why_data_refused(data) == why
    good = Job("reviews", REPOSITORY)
    bad = Job("reviews", REPOSITORY, None, data)
    assert split_jobs([good, bad, good]) == ([good, good], [(bad, why)])


def test_everything_else_can() -> None:
    data = {"a": [1, 2.5, None, True, "ü€😀"], "b": nested(97), "c": 10**300, "d": (), "": "\n\t"}
    assert why_data_refused(data) is None


def test_a_name_and_an_id_are_looked_at_too() -> None:
    for job in (Job("reviews", REPOSITORY, "a\0"), Job("reviews", REPOSITORY, None, {}, "\udfff")):
        ((_, why),) = split_jobs([job])[1]
        assert "has a name or an id with" in why


@pytest.fixture
async def rest(database: Database) -> AsyncIterator[Servers]:
    async with start_servers(database.url) as serving:
        yield serving


@pytest.mark.parametrize("mode", ["direct", "ordered"])
async def test_both_ways_refuse_the_same_jobs_alone(
    database: Database, rest: Servers, event_api: StandIn, mode: str
) -> None:
    repository = Application(database.connect()).repository()
    jobs = [Job("reviews", repository, "acme/web", {"n": number}, uuid4().hex) for number in range(3)]
    large = Job("reviews", repository, None, {"text": "x" * 3_200_000}, uuid4().hex)
    bad = [Job("reviews", repository, None, data, uuid4().hex) for data, _ in REFUSED.values()]
    async with (
        open_store(rest.url, rest.service_role_key) as store,
        open_event_sender(event_api.settings()) as sender,
    ):
        queue = DirectQueue(store, sender) if mode == "direct" else OrderedQueue(store)
        result = await queue.queue_jobs([*bad, *jobs, large])
    assert [queued.job for queued in result.sent] == jobs
    reasons = {id(refused.job): refused.reason for refused in result.refused}
    assert [reasons[id(job)] for job in bad] == [why for _, why in REFUSED.values()]
    assert "bytes" in reasons[id(large)]
