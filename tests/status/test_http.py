"""The endpoints: what they answer, while the event loop is busy too."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
import uvicorn
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from priorityd.core.priorities import PRIORITIES
from priorityd.core.status.facts import CountFacts, Facts
from priorityd.core.status.health import judge
from priorityd.daemon.status.http import Probes, listen, serve
from priorityd.daemon.status.loop_gate import STALLED_AFTER_SECONDS
from priorityd.daemon.status.metrics import Metrics
from tests.support.daemon_process import PLAIN, eventually
from tests.support.patience import PATIENCE_SECONDS
from tests.support.reports import a_report

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
NOTHING: list[str] = []


@asynccontextmanager
async def serving(metrics: Metrics, **probes: Callable[[], Any]) -> AsyncIterator[str]:
    """The endpoints at a URL; probes are answered in this event loop."""
    everything: dict[str, Any] = {
        "not_alive": list,
        "not_ready": list,
        "status": a_report,
        "refresh": metrics.refresh,
        **probes,
    }
    with listen("127.0.0.1", 0) as endpoint:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, endpoint, metrics.registry, Probes(**everything))
            yield "http://{}:{}".format(*endpoint.getsockname())
            tasks.cancel_scope.cancel()


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, trust_env=False, verify=PLAIN, timeout=PATIENCE_SECONDS)


async def in_thread(call: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(call)


async def while_the_loop_is_blocked(ask: Callable[[], Any]) -> Any:
    """What a thread gets that asks; the loop does nothing before it has its answer."""
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(ask()))
    asking.start()
    asking.join(PATIENCE_SECONDS)
    await in_thread(asking.join)
    return answers[0]


async def test_metrics_are_scraped_while_the_event_loop_is_blocked() -> None:
    metrics = Metrics()
    async with serving(metrics) as url:
        await in_thread(lambda: get(f"{url}/metrics"))

        def scrape() -> httpx.Response:
            metrics.jobs.inversions.inc()
            return get(f"{url}/metrics")

        answer = await while_the_loop_is_blocked(scrape)
        assert answer.status_code == 200
        assert "workspace_priority_job_inversions_total 1.0" in answer.text


async def test_while_the_event_loop_stands_still_a_scrape_says_not_ready() -> None:
    """As `/readyz` does, though the gauge was 1 when the loop last turned."""
    metrics, facts = Metrics(), Facts(counts=CountFacts(1))

    def refresh() -> None:
        metrics.health.show(facts, judge(facts))

    async with serving(metrics, refresh=refresh, blocked=metrics.health.blocked) as url:

        def ready() -> bool:
            return "workspace_priority_ready 1.0" in get(f"{url}/metrics").text

        def ask() -> bool:
            time.sleep(STALLED_AFTER_SECONDS + 0.2)
            return ready()

        assert await in_thread(ready)
        assert not await while_the_loop_is_blocked(ask)
        await eventually(lambda: in_thread(ready))


async def test_the_server_sleeps_while_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    look = uvicorn.Server.on_tick

    async def counted(server: uvicorn.Server, counter: int) -> bool:
        turns.append(time.monotonic())
        return await look(server, counter)

    monkeypatch.setattr(uvicorn.Server, "on_tick", counted)
    async with serving(Metrics()) as url:
        await eventually(lambda: len(turns) >= 3)
        answer = await in_thread(lambda: get(f"{url}/livez"))
        assert turns[2] - turns[1] > 0.9
        assert "date" in answer.headers


async def test_a_blocked_loop_is_not_alive_and_alive_again_afterwards() -> None:
    async with serving(Metrics()) as url:
        assert (await in_thread(lambda: get(f"{url}/livez"))).text == "ok\n"

        def ask() -> list[httpx.Response]:
            time.sleep(STALLED_AFTER_SECONDS + 0.2)
            return [get(f"{url}{path}") for path in ("/livez", "/readyz", "/status", "/")]

        answers = await while_the_loop_is_blocked(ask)
        assert [answer.status_code for answer in answers] == [503] * 4
        assert "has not turned" in answers[0].text
        await eventually(lambda: in_thread(lambda: get(f"{url}/livez").status_code == 200))


async def test_probes_are_answered_in_the_loop_that_owns_the_state() -> None:
    here, threads = threading.get_ident(), set[int]()

    def remembered(answer: Any) -> Callable[[], Any]:
        def read() -> Any:
            threads.add(threading.get_ident())
            return answer

        return read

    probes = {
        "not_alive": remembered([]),
        "not_ready": remembered(["starting"]),
        "status": remembered(a_report()),
        "refresh": remembered(None),
    }
    async with serving(Metrics(), **probes) as url:
        answers = [
            await in_thread(partial(get, url + path))
            for path in ("/", "/livez", "/readyz", "/status", "/metrics")
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 503, 200, 200]
    assert threads == {here}


async def test_a_probe_that_raises_is_an_error_and_ends_nothing() -> None:
    def broken() -> list[str]:
        raise ValueError("broken")

    async with serving(Metrics(), not_ready=broken) as url:
        assert (await in_thread(lambda: get(f"{url}/readyz"))).status_code == 500
        assert (await in_thread(lambda: get(f"{url}/livez"))).status_code == 200


async def test_the_thread_is_gone_when_serving_ends() -> None:
    async with serving(Metrics()) as url:
        await in_thread(lambda: get(f"{url}/livez"))
        assert [thread.name for thread in threading.enumerate()].count("http") == 1
    await eventually(lambda: "http" not in [thread.name for thread in threading.enumerate()])


async def test_openmetrics_is_given_to_those_who_ask_for_it() -> None:
    async with serving(Metrics()) as url:
        as_openmetrics = await in_thread(lambda: get(f"{url}/metrics", accept=OPENMETRICS))
        as_text = await in_thread(lambda: get(f"{url}/metrics", accept="text/plain"))
    assert as_openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert as_text.headers["content-type"].startswith("text/plain")
    assert as_openmetrics.text.endswith("# EOF\n")
    families = list(openmetrics(as_openmetrics.text))  # type: ignore[no-untyped-call]
    assert {family.name for family in families} == {
        family.name.removesuffix("_total") for family in plain(as_text.text)
    }
    exemplars = [sample.exemplar for family in families for sample in family.samples]
    assert set(exemplars) == {None}, "an exemplar would be an id in a metric"
    assert not any(sample.name.endswith("_created") for family in families for sample in family.samples)


async def test_a_scrape_does_not_grow_with_what_has_happened() -> None:
    metrics = Metrics()
    async with serving(metrics) as url:

        async def lines() -> int:
            answer = await in_thread(lambda: get(f"{url}/metrics"))
            return len(answer.text.splitlines())

        before = await lines()
        for n in range(5000):
            priority = PRIORITIES[n % 3]
            metrics.apply.change_latency.labels(priority).observe(n / 100)
            metrics.apply.changes.labels("medium", priority, "event").inc()
            metrics.jobs.ended.labels(priority, "completed").inc()
            metrics.jobs.wait.labels(priority).observe(n)
        assert await lines() == before
    assert before < 1000, "each line costs a scrape some 10 µs"


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/status", "/metrics"])
async def test_nothing_is_loaded_or_run_that_the_page_does_not_hold(path: str) -> None:
    async with serving(Metrics()) as url:
        answer = await in_thread(lambda: get(url + path))
        assert answer.status_code == 200
        if path == "/":
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\xff\xfe garbage \r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"DELETE /status HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_endpoints_survive_garbage_and_change_nothing(request_bytes: bytes) -> None:
    with listen("127.0.0.1", 0) as endpoint:
        address = endpoint.getsockname()
        probes = Probes(not_alive=lambda: NOTHING, not_ready=lambda: ["still starting"], status=a_report)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, endpoint, Metrics().registry, probes)
            async with await anyio.connect_tcp(*address) as client:
                await client.send(request_bytes)
                with anyio.move_on_after(1):
                    answer = await client.receive()
                    assert b" 200 " not in answer
            async with httpx.AsyncClient(
                base_url="http://{}:{}".format(*address),
                trust_env=False,
                verify=PLAIN,
                timeout=PATIENCE_SECONDS,
            ) as http:
                assert (await http.get("/livez")).text == "ok\n"
                not_ready = await http.get("/readyz")
                assert (not_ready.status_code, not_ready.text) == (503, "still starting\n")
                assert (await http.get("/")).status_code == 200
                assert "workspace_priority_build_info" in (await http.get("/metrics")).text
                assert (await http.post("/status")).status_code == 405
            tasks.cancel_scope.cancel()


def test_listening_says_which_port_it_got() -> None:
    with listen("127.0.0.1", 0) as endpoint:
        assert isinstance(endpoint, socket.socket)
        assert endpoint.getsockname()[1] > 0
