"""The command as a subprocess: what it prints, how it ends, what it leaves behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import psycopg
import pytest

from priorityd.daemon.sandbox.server import reserve_port
from tests.support.daemon_process import eventually
from tests.support.effort import some_of
from tests.support.patience import PATIENCE_SECONDS
from tests.support.sandbox_command import COMMAND, postgres_of, running
from tests.support.terminal import Shell, shell

if TYPE_CHECKING:
    from collections.abc import Iterator


_SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}


@pytest.mark.parametrize("number", some_of(_SIGNALS, "SIGINT"))
def test_prints_the_facts_and_leaves_nothing_behind(number: signal.Signals) -> None:
    with running("--no-daemon", "--empty") as sandbox:
        facts = sandbox.facts()
        assert set(facts) == {"supabase_url", "service_role_key", "anon_key", "database_url", "metrics_url"}
        assert facts["metrics_url"] is None
        with psycopg.connect(facts["database_url"]) as session:
            assert session.execute("select count(*) from tracked_repositories").fetchone() == (0,)
        headers = {
            "apikey": facts["service_role_key"],
            "Authorization": f"Bearer {facts['service_role_key']}",
        }
        url = f"{facts['supabase_url']}/rest/v1/rpc/workspace_priority_snapshot"
        assert httpx.post(url, headers=headers, json={}, timeout=PATIENCE_SECONDS).status_code == 200
        assert len(sandbox.family) > 1
        assert sandbox.end(number) == 0
        assert sandbox.left_behind() == []


@pytest.mark.situations
def test_listens_on_loopback_only_and_with_new_keys_each_time() -> None:
    seen: list[str] = []
    for _ in range(2):
        with running("--empty", "--http-port", "0") as sandbox:
            facts = sandbox.facts()
            listening = {
                connection.laddr.ip
                for process in sandbox.family
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
            assert listening == {"127.0.0.1"}
            seen += [facts["service_role_key"], facts["anon_key"]]
    assert len(set(seen)) == 4


def test_runs_the_daemon_and_shows_what_happens() -> None:
    with running("--http-port", "0", "--traffic", "20") as sandbox:
        facts = sandbox.facts()
        readyz = facts["metrics_url"].replace("/metrics", "/readyz")
        assert httpx.get(readyz, timeout=PATIENCE_SECONDS).status_code == 200
        seen: set[tuple[str, str]] = set()
        while not {("traffic", "added"), ("daemon", "priority_changed")} <= seen:
            event = sandbox.next_line()
            seen.add((event["source"], event["event"]))
        assert sandbox.end(signal.SIGINT) == 0
        assert sandbox.left_behind() == []


def test_fails_when_the_daemon_dies() -> None:
    with running("--http-port", "0", "--traffic", "0") as sandbox:
        sandbox.facts()
        (daemon,) = [p for p in sandbox.family if p.is_running() and p.cmdline()[-2:] == ["priorityd", "run"]]
        daemon.kill()
        _, words = sandbox.process.communicate(timeout=PATIENCE_SECONDS)
        assert sandbox.process.returncode == 1
        assert "the daemon exited unexpectedly" in words
        assert sandbox.left_behind() == []


def test_a_signal_while_starting_ends_it_cleanly() -> None:
    with running("--no-daemon") as sandbox:
        assert sandbox.process.stderr is not None
        assert "PostgreSQL" in sandbox.process.stderr.readline()
        assert sandbox.end(signal.SIGINT) == 0
        assert sandbox.left_behind() == []


def test_a_busy_port_is_named_and_nothing_is_started() -> None:
    with reserve_port(0) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--port", port], capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        assert done.returncode == 1
        assert f"port {port}" in done.stderr
        assert "--port" in done.stderr
        assert "PostgreSQL" not in done.stderr
        other = [*COMMAND, "--http-port", port]
        done = subprocess.run(other, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert done.returncode == 1
        assert f"port {port}" in done.stderr


@pytest.mark.situations
def test_the_daemons_port_does_not_matter_without_a_daemon() -> None:
    with reserve_port(0) as taken:
        port = str(taken.getsockname()[1])
        with running("--no-daemon", "--empty", "--http-port", port) as sandbox:
            assert sandbox.facts()["metrics_url"] is None


@pytest.mark.situations
def test_a_kept_data_directory_keeps_its_rows() -> None:
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        Path(name).chmod(0o755)
        options = ("--no-daemon", "--traffic", "0", "--data-dir", f"{name}/data")
        for expected in (48, 49):
            with running(*options) as sandbox, psycopg.connect(sandbox.facts()["database_url"]) as session:
                assert session.execute("select count(*) from repositories").fetchone() == (expected,)
                session.execute("insert into repositories default values")
                session.commit()
                assert sandbox.end(signal.SIGINT) == 0


@pytest.mark.situations
def test_a_data_directory_in_use_is_refused_and_left_alone() -> None:
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        Path(name).chmod(0o755)
        options = ("--no-daemon", "--empty", "--data-dir", f"{name}/data")
        with running(*options) as first:
            facts = first.facts()
            second = subprocess.run(
                [*COMMAND, *options], capture_output=True, text=True, timeout=PATIENCE_SECONDS
            )
            assert second.returncode == 1
            assert "--data-dir" in second.stderr
            with psycopg.connect(facts["database_url"]) as session:
                assert session.execute("select 1").fetchone() == (1,)
            assert first.end(signal.SIGINT) == 0


def test_a_data_directory_that_there_cant_be_is_said_in_words() -> None:
    command = [*COMMAND, "--no-daemon", "--data-dir", "/dev/null/data"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 1
    assert "/dev/null/data: Not a directory: choose another with --data-dir" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.situations
def test_what_a_killed_sandbox_left_running_is_taken_over() -> None:
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        Path(name).chmod(0o755)
        options = ("--no-daemon", "--empty", "--data-dir", f"{name}/data")
        with running(*options) as first:
            first.facts()
            first.end(signal.SIGKILL)
        with running(*options) as second:
            second.facts()
            assert second.end(signal.SIGINT) == 0
            assert postgres_of(Path(name)) == []


@contextmanager
def on_a_terminal(*options: str) -> Iterator[tuple[Shell, Path]]:
    """The command on a terminal of its own, and its directory for temporary files.

    Leaving closes the terminal, which has to end everything and leave nothing.
    """
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        temporary = Path(name)
        temporary.chmod(0o755)
        # The shell outlives Ctrl-C, to say how the command ended.
        script = f"trap : INT; {shlex.join([*COMMAND, *options])}; echo ended $?"
        with shell(["sh", "-c", script], os.environ | {"TMPDIR": name, "TERM": "xterm"}) as screen:
            yield screen, temporary
            family = [*_at_work_in(temporary), *postgres_of(temporary)]
        _, alive = psutil.wait_procs(family, PATIENCE_SECONDS)
        # Where process 1 does not reap orphans, as in many containers, they stay as zombies.
        assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
        assert list(temporary.iterdir()) == []


def _at_work_in(directory: Path) -> list[psutil.Process]:
    return [
        p
        for p in psutil.process_iter(["environ"])
        if (p.info["environ"] or {}).get("TMPDIR") == str(directory)
    ]


@pytest.mark.situations
def test_its_screen_leads_to_the_page_and_to_sql_and_ends_with_its_terminal() -> None:
    with on_a_terminal("--http-port", "0", "--traffic", "20") as (screen, temporary):
        page = screen.expect(r"Status page: \S*http://[\d.:]+/").partition("http")[2]
        assert httpx.get(f"http{page}", timeout=PATIENCE_SECONDS).status_code == 200
        line = re.search(r"/.*", screen.expect(r"SQL: .*?'[^']+'"))
        assert line is not None
        typed = subprocess.run(f"{line[0]} -Atc 'select 1'", shell=True, capture_output=True, text=True)
        assert (typed.stdout, typed.stderr) == ("1\n", "")
        screen.expect(r"[a-z]+/[a-z]+: medium → ")
        assert len(_at_work_in(temporary)) > 3


async def test_ctrl_c_while_postgresql_is_being_set_up_is_no_failure() -> None:
    with on_a_terminal("--no-daemon") as (screen, temporary):
        await eventually(lambda: [p for p in postgres_of(temporary) if p.name() == "initdb"])
        screen.type("\x03")
        drawn = screen.expect(r"(?s).*ended \d+")
        assert "initdb" not in drawn
        assert "Traceback" not in drawn
        assert drawn.endswith("ended 0")
