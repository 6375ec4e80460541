"""The store against misbehaving servers: every failure becomes one of ours, none is retried indefinitely."""

from __future__ import annotations

import gzip
import socket
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from priorityd.core.database.answers import RepositoryPriority, SyncAnswer
from priorityd.core.errors import KeyRefusedError, MissingGrantError, PermanentError, TransientError
from priorityd.daemon.bounded_client import MAX_ANSWER_BYTES
from priorityd.daemon.database.store import (
    _TIMEOUT_SECONDS,
    CALL_TIMEOUT_SECONDS,
    open_store,
    read,
)
from tests.support.answers import GOOD, Answer, answering, hang_up, http, say_nothing
from tests.support.database import Database
from tests.support.effort import tries


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (http(503, {"code": "PGRST002", "message": "schema cache"}), "unavailable"),
        (http(502, b"<html>Bad gateway</html>"), "unavailable"),
        (http(500, {"code": "40P01", "message": "deadlock detected"}), "contention"),
        (http(429, {"message": "slow down"}, "Retry-After: 0.1"), "rate_limited"),
        (http(200, b"<html>captive portal</html>"), "bad_answer"),
        (http(200, {"beat_at": "soon"}), "bad_answer"),
        (http(200, b""), "bad_answer"),
        (http(200, b"[" * 20_000), "bad_answer"),
        (http(503, b'{"code":' * 20_000), "unavailable"),
        (b"nonsense\r\n\r\n", "network"),
        (hang_up, "network"),
    ],
)
async def test_what_may_pass_is_tried_again_and_counted(trouble: Answer, reason: str) -> None:
    async with answering(trouble, GOOD) as (store, reasons):
        assert (await store.beat(uuid4())).beat_at.year == 2025
        assert reasons == [reason]


async def test_gives_up_after_some_attempts() -> None:
    async with answering(http(503, b"")) as (store, reasons):
        with pytest.raises(TransientError, match="503"):
            await store.beat(uuid4())
        assert reasons == ["unavailable"] * 4


async def test_a_host_that_does_not_resolve_is_told_with_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_host(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    reasons: list[str] = []
    async with open_store("http://gone.example.com", "a.b.c", on_error=reasons.append) as store:
        with pytest.raises(TransientError, match=r"reached at http://gone\.example\.com for beat"):
            await store.beat(uuid4())
    assert set(reasons) == {"network"}


async def test_a_long_retry_after_is_left_to_the_queue() -> None:
    async with answering(http(429, {"message": "slow down"}, "Retry-After: 120")) as (store, reasons):
        with pytest.raises(TransientError) as caught:
            await store.beat(uuid4())
        assert caught.value.least_delay_seconds == 120
        assert len(reasons) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(400, {"code": "23514", "message": "p_trigger is wrong"}), PermanentError),
        (http(401, {"message": "Invalid API key"}), KeyRefusedError),
        (http(401, {"code": "PGRST301", "message": "JWSError"}), KeyRefusedError),
    ],
)
async def test_what_will_not_pass_is_asked_once(answer: bytes, error: type[Exception]) -> None:
    async with answering(answer) as (store, reasons):
        with pytest.raises(error):
            await store.beat(uuid4())
        assert len(reasons) == 1


VERSION = http(200, {"set": 1, "works_from": 1, "units": []})
NOTHING = http(
    200,
    dict.fromkeys(["examined", "workspace_repos", "tracked_only_repos", "untracked", "changed"], 0)
    | {"changes": [], "applied_at": "2025-01-03T00:00:00+00:00"},
)
DENIED = http(403, {"code": "42501", "message": "permission denied for table workspace_repositories"})


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([DENIED, VERSION, NOTHING], PermanentError),
        ([DENIED, VERSION, DENIED], MissingGrantError),
        ([DENIED, DENIED], MissingGrantError),
        ([DENIED, http(401, {"code": "PGRST301", "message": "JWSError"})], KeyRefusedError),
        ([DENIED, VERSION, http(503, {"code": "PGRST002"}), http(503, {})], TransientError),
    ],
)
async def test_whether_a_refusal_is_about_the_key_harmless_calls_tell(
    answers: list[bytes], error: type[Exception]
) -> None:
    async with answering(*answers) as (store, _):
        with pytest.raises(error):
            await store.beat(uuid4())


async def test_later_refusals_are_taken_for_what_passes() -> None:
    refused = http(401, {"code": "PGRST301", "message": "JWSError"})
    async with answering(refused, refused, DENIED, DENIED, GOOD) as (store, _):
        with pytest.raises(KeyRefusedError):
            await store.beat(uuid4())
        store.outlive_refusals()
        for reason in ("key_refused", "not_set_up"):
            with pytest.raises(TransientError) as caught:
                await store.beat(uuid4())
            assert caught.value.reason == reason
        assert (await store.beat(uuid4())).beat_at.year == 2025


async def test_what_took_too_long_is_not_asked_again() -> None:
    late = http(500, {"code": "57014", "message": "canceling statement due to statement timeout"})
    async with answering(late) as (store, reasons):
        with pytest.raises(TransientError):
            await store.sync([], "manual")
        assert reasons == ["timeout"]


async def test_a_wait_of_any_length_is_left_to_the_caller() -> None:
    unknown = http(404, {"code": "PGRST202", "message": "no function"}, "Retry-After: 3600")
    async with answering(unknown) as (store, reasons):
        with pytest.raises(TransientError):
            await store.beat(uuid4())
        assert reasons == ["schema_cache"]


@pytest.mark.parametrize("status", [200, 502])
async def test_an_answer_that_grows_too_large_is_given_up(status: int) -> None:
    packed = gzip.compress(b"[" + b" " * (MAX_ANSWER_BYTES + 1) + b"]")
    assert len(packed) < 100_000
    async with answering(http(status, packed, "Content-Encoding: gzip"), GOOD) as (store, reasons):
        assert (await store.beat(uuid4())).beat_at.year == 2025
        assert reasons == ["bad_answer"]
    async with answering(http(200, packed, "Content-Encoding: gzip")) as (store, _):
        with pytest.raises(TransientError, match="more than 32 MiB"):
            await store.beat(uuid4())


async def test_an_answer_may_be_packed() -> None:
    packed = gzip.compress(b'{"beat_at": "2025-01-03T00:00:00+00:00"}')
    async with answering(http(200, packed, "Content-Encoding: gzip")) as (store, reasons):
        assert (await store.beat(uuid4())).beat_at.year == 2025
        assert reasons == []


async def test_a_503_that_says_at_once_is_not_asked_at_once_for_ever() -> None:
    async with answering(http(503, {"code": "PGRST002"}, "Retry-After: 0")) as (store, reasons):
        with pytest.raises(TransientError) as caught:
            await store.beat(uuid4())
        assert caught.value.least_delay_seconds == 0
        assert len(reasons) == 4


async def test_a_silent_connection_is_given_up_and_the_next_one_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_TIMEOUT_SECONDS, "beat_workspace_priorities", 0.3)
    async with answering(say_nothing, GOOD) as (store, reasons):
        assert (await store.beat(uuid4())).beat_at.year == 2025
        # On a busy machine the good one may be too slow at first.
        assert set(reasons) == {"timeout"}


def test_the_database_gives_up_before_its_caller_and_the_caller_soon_after(database_of_all: Database) -> None:
    own = dict(
        database_of_all.connect()
        .execute(
            """select p.proname, extract(epoch from split_part(s.setting, '=', 2)::interval)::float
            from pg_proc p, unnest(p.proconfig) s (setting)
            where p.pronamespace = 'public'::regnamespace and s.setting like 'statement_timeout=%'"""
        )
        .fetchall()
    )
    assert set(_TIMEOUT_SECONDS) <= set(own)
    for function, seconds in own.items():
        assert seconds < _TIMEOUT_SECONDS.get(function, CALL_TIMEOUT_SECONDS), function
    for function, limit in _TIMEOUT_SECONDS.items():
        assert limit <= own[function] + 5, function


@pytest.mark.parametrize("function", ["release_ordered_jobs", "mark_jobs_sent", "claim_priority_changes"])
def test_what_others_wait_for_is_not_held_up_for_long_by_a_silent_connection(function: str) -> None:
    """One that a router forgot is silent until the time-out, and jobs and announcements wait as long."""
    assert _TIMEOUT_SECONDS.get(function, CALL_TIMEOUT_SECONDS) < 25


async def test_a_very_long_message_is_cut() -> None:
    async with answering(http(400, {"code": "P0001", "message": "x" * 100_000})) as (store, _):
        with pytest.raises(PermanentError) as caught:
            await store.beat(uuid4())
        assert len(str(caught.value)) < 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.uuids().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
SYNC_FIELDS = [
    "examined",
    "workspace_repos",
    "tracked_only_repos",
    "untracked",
    "changed",
    "changes",
    "applied_at",
]
GOOD_SYNC: dict[str, Any] = dict.fromkeys(SYNC_FIELDS, 0) | {
    "changes": [],
    "applied_at": "2025-01-03T00:00:00+00:00",
}


@given(JSON | st.dictionaries(st.sampled_from(SYNC_FIELDS), JSON).map(lambda odd: GOOD_SYNC | odd))
@settings(max_examples=tries(250), suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_an_odd_answer_is_refused_or_well_formed(answer: object) -> None:
    # A ValidationError is what the store turns into a transient "bad_answer"; anything else would be a crash.
    try:
        understood = read(SyncAnswer, answer)
    except ValidationError:
        return
    assert isinstance(understood.changed, int)
    assert understood.applied_at is not None


@pytest.mark.parametrize(
    "odd",
    [
        {"applied_at": "2025-01-03T00:00:00"},
        {"database_seconds": float("inf")},
        {"database_seconds": float("nan")},
    ],
)
def test_a_time_without_a_zone_and_a_number_that_is_none_are_refused(odd: dict[str, Any]) -> None:
    """Whoever computes with them later would fail."""
    with pytest.raises(ValidationError):
        read(SyncAnswer, GOOD_SYNC | odd)


def test_priorities_are_keyed_by_repository() -> None:
    key = "11111111-1111-4111-8111-111111111111"
    entry = {"priority": "high", "is_workspace_repo": True, "workspace_count": 2}
    assert read(dict[UUID, RepositoryPriority], {key: entry})[UUID(key)].workspace_count == 2


async def test_what_follows_a_packed_answer_is_not_kept_however_long_it_is() -> None:
    packed = gzip.compress(b'{"beat_at": "2025-01-03T00:00:00+00:00"}')
    endless = packed + bytes(MAX_ANSWER_BYTES + 1)
    async with answering(http(200, endless, "Content-Encoding: gzip")) as (store, _):
        with pytest.raises(TransientError, match="more than 32 MiB"):
            await store.beat(uuid4())
