"""HTTP endpoints, logs, settings files."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest
import structlog

from priorityd.daemon.liveness import Progress
from priorityd.daemon.logs import configure_logs
from priorityd.daemon.settings import load_settings
from priorityd.daemon.status.http import Probes, listen, serve
from priorityd.daemon.status.metrics import Metrics
from tests.support.daemon_process import eventually
from tests.support.reports import a_report

NOTHING: list[str] = []


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
            async with httpx.AsyncClient(base_url="http://{}:{}".format(*address), trust_env=False) as http:
                assert (await http.get("/livez")).text == "ok\n"
                not_ready = await http.get("/readyz")
                assert (not_ready.status_code, not_ready.text) == (503, "still starting\n")
                assert (await http.get("/")).status_code == 200
                assert "workspace_priority_build_info" in (await http.get("/metrics")).text
                assert (await http.post("/status")).status_code == 405
            tasks.cancel_scope.cancel()


@pytest.fixture
def logs_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("logs_restored")
def test_secrets_do_not_reach_the_logs(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "info", ("sb_secret_abc",))
    log = structlog.stdlib.get_logger()
    log.info(
        "x", url="wss://h/?apikey=sb_secret_abc", error=ValueError("sb_secret_abc"), nested=["sb_secret_abc"]
    )
    log.error("failed", exc_info=RuntimeError("the key is sb_secret_abc"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "sb_secret_abc" not in "".join(lines)
    assert json.loads(lines[1])["level"] == "error"


def test_settings_come_from_secret_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SUPABASE_URL").write_text("https://x.supabase.co/\n")
    (tmp_path / "SUPABASE_SECRET_KEY").write_text("sb_secret_abc\n")
    for name in ("SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    settings = load_settings()
    assert settings.supabase_url == "https://x.supabase.co"
    assert settings.supabase_key.get_secret_value() == "sb_secret_abc"
    assert "sb_secret_abc" not in repr(settings)


def test_the_environment_wins_over_secret_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SUPABASE_URL").write_text("https://file.supabase.co")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SUPABASE_URL", "https://environment.supabase.co")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", "a.b.c")
    assert load_settings().supabase_url == "https://environment.supabase.co"


def test_listening_says_which_port_it_got() -> None:
    with listen("127.0.0.1", 0) as endpoint:
        assert isinstance(endpoint, socket.socket)
        assert endpoint.getsockname()[1] > 0


async def test_a_part_that_no_longer_goes_round_is_named() -> None:
    progress = Progress(stalled_after_seconds=0.05)
    progress.beat("worker")
    progress.beat("listener")
    progress.ended("listener")
    assert progress.stalled() == []
    await eventually(lambda: progress.stalled() == ["worker"])
    progress.beat("worker")
    assert progress.stalled() == []
