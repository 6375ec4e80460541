"""`priorityd queue`: what it sends, what it says, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from tests.support.daemon_process import environment, eventually, free_port
from tests.support.event_api import EVENT_KEY, EventApi, Faults, serve_event_api
from tests.support.programs import PYTHON, open_module, run_module
from tests.support.stack import Stack

Result = tuple[int, str, str]


@dataclass
class Shell:
    """A shell with the settings for the sandbox and for the stand-in for Inngest."""

    stack: Stack
    url: str
    api: EventApi = field(default_factory=EventApi)

    async def queue(self, *arguments: str, stdin: str | bytes = b"", **settings: object) -> Result:
        return await run_module(
            "priorityd",
            "queue",
            *arguments,
            given=stdin.encode() if isinstance(stdin, str) else stdin,
            env=self.environment(**settings),
        )

    def environment(self, **settings: object) -> dict[str, str]:
        inngest = {"INNGEST_EVENT_API_BASE_URL": self.url, "INNGEST_EVENT_KEY": EVENT_KEY}
        return environment(**(self.stack.settings | inngest | settings))

    @property
    def data(self) -> list[dict[str, Any]]:
        return [event["data"] for event in self.api.accepted]


@pytest.fixture
async def shell(stack: Stack) -> AsyncIterator[Shell]:
    api = EventApi()
    async with serve_event_api(api) as url:
        yield Shell(stack, url, api)


async def test_queues_a_job_for_each_id_with_its_priority(shell: Shell) -> None:
    app = shell.stack.app
    held, other, unknown = app.repository(), app.repository(), uuid4()
    app.add(app.workspace(), held)
    await shell.stack.priorityd("sync")
    arguments = ("recent-prs", str(other), str(held), str(unknown))
    code, out, err = await shell.queue(*arguments, "--data", '{"days": 7}')
    assert (code, out) == (0, "")
    assert "3 of 3 jobs queued" in err
    assert "1 high, 2 medium" in err
    assert "At medium because they have no tracked row: 1." in err
    assert {event["name"] for event in shell.api.accepted} == {"capture/repository.sync.graphql"}
    assert [(each["repositoryId"], each["priority"], each["days"]) for each in shell.data] == [
        (str(held), 100, 7),
        (str(other), 50, 7),
        (str(unknown), 50, 7),
    ]


async def test_reads_ids_and_names_however_the_lines_end(shell: Shell) -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    lines = f"\ufeff{first}\tacme/web\r\n\r\n  {str(second).upper()}   acme/my api \n{first}\n{third}"
    code, out, err = await shell.queue("reviews", "--stdin", "--json", stdin=lines)
    assert code == 0
    assert "Duplicates ignored: 1. Each repository is queued once." in err
    report = json.loads(out)
    assert (report["queued"], report["duplicates"], report["look_ups"]) == (3, 1, 1)
    assert [
        (job["repository_id"], job["priority"], job["score"], job["look_up"]) for job in report["jobs"]
    ] == [(str(key), "medium", 50, "untracked") for key in (first, second, third)]
    assert {job["event_id"] for job in report["jobs"]} == {event["id"] for event in shell.api.accepted}
    assert [each.get("repositoryName") for each in shell.data] == ["acme/web", "acme/my api", None]


async def test_a_line_without_an_id_is_named_and_nothing_is_queued(shell: Shell) -> None:
    code, out, err = await shell.queue("reviews", "--stdin", stdin=f"{uuid4()}\nmy web\n{uuid4()}\n")
    assert (code, out, shell.api.attempts) == (2, "", 0)
    assert "line 2: 'my web'. Nothing was queued." in err
    code, _, err = await shell.queue("reviews", "--stdin", stdin="nonsense\n" * 20)
    assert code == 2
    assert "line 5: 'nonsense' and 15 more" in err
    assert (await shell.queue("reviews", "--stdin", stdin=b"\xff\xfe\x00"))[0] == 2


async def test_no_ids_are_wrong_usage_and_an_empty_list_is_nothing_to_do(shell: Shell) -> None:
    code, _, err = await shell.queue("reviews")
    assert code == 2
    assert "--stdin" in err
    code, out, err = await shell.queue("reviews", "--stdin", "--json", stdin="\n \n")
    assert (code, json.loads(out)["queued"]) == (0, 0)
    assert "The list is empty: nothing was queued." in err
    assert shell.api.attempts == 0


@pytest.mark.parametrize("data", ["{", "[1]", '{"priority": "high"}'])
async def test_data_that_can_not_be_is_wrong_usage(shell: Shell, data: str) -> None:
    code, _, err = await shell.queue("reviews", str(uuid4()), "--data", data)
    assert (code, shell.api.attempts) == (2, 0)
    assert "--data" in err


async def test_an_unknown_job_type_is_refused_with_a_list_of_those_there_are(shell: Shell) -> None:
    code, _, err = await shell.queue("commits", str(uuid4()))
    assert code == 2
    for job_type in ("historical-pr-sync", "recent-prs", "pr-details", "reviews", "comments"):
        assert job_type in err
    assert "repository-issues" in err
    assert "repository-discussions" in err


async def test_a_missing_key_is_named_and_a_wrong_one_is_not_shown(shell: Shell) -> None:
    code, out, err = await shell.queue("reviews", str(uuid4()), INNGEST_EVENT_KEY="")
    assert (code, out) == (78, "")
    assert "INNGEST_EVENT_KEY is not set" in err
    code, out, err = await shell.queue("reviews", str(uuid4()), INNGEST_EVENT_KEY="not-the-secret")
    assert code == 77
    assert "1 of 1 jobs were not sent" in err
    assert "not-the-secret" not in err + out


async def test_supabase_being_away_delays_no_job(shell: Shell) -> None:
    key = uuid4()
    code, _, err = await shell.queue("reviews", str(key), SUPABASE_URL=f"http://127.0.0.1:{free_port()}")
    assert code == 0
    assert "At medium because their priority could not be looked up: 1 (" in err
    assert shell.data[0]["metadata"]["priorityLookup"] == "failed"


async def test_a_refused_job_fails_the_command_and_no_other_job(shell: Shell) -> None:
    good, bad = uuid4(), uuid4()
    shell.api.faults = Faults(refuse=str(bad))
    code, out, err = await shell.queue("reviews", "--stdin", stdin=f"{bad} acme/web\n{good}\n")
    assert (code, out) == (1, f"{bad}\tacme/web\n")
    assert f"Refused: acme/web ({bad}): " in err
    assert [each["repositoryId"] for each in shell.data] == [str(good)]


async def test_what_was_not_sent_is_listed_and_the_batch_can_be_gone_on_with(shell: Shell) -> None:
    keys = [uuid4() for _ in range(3000)]
    lines = "".join(f"{key}\n" for key in keys)
    shell.api.faults = Faults(status=503, accept=50, requests=None)
    code, out, err = await shell.queue("recent-prs", "--stdin", stdin=lines)
    assert code == 69
    assert "3,000 of 3,000 jobs were not sent" in err
    assert [UUID(line) for line in out.split()] == keys
    batch_id = err.partition("--batch-id ")[2].split()[0]
    shell.api.faults = Faults()
    code, _, err = await shell.queue("recent-prs", "--stdin", "--batch-id", batch_id, stdin=lines)
    assert code == 0
    assert len(shell.api.accepted) > len(keys)
    assert [UUID(event["data"]["repositoryId"]) for event in shell.api.runs] == keys


async def test_an_interrupted_batch_can_be_gone_on_with(shell: Shell) -> None:
    key = uuid4()
    shell.api.faults = Faults(hang=True)
    arguments = ("queue", "reviews", str(key), "--batch-id", "night")
    process = await open_module("priorityd", *arguments, env=shell.environment())
    async with process:
        await eventually(lambda: shell.api.attempts)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = b"".join([part async for part in process.stderr]).decode()
        assert await process.wait() == 1
    assert "Interrupted after 0 of 1 jobs" in said
    assert "--batch-id night" in said
    assert "Traceback" not in said


async def test_ten_thousand_ids_are_looked_up_by_five_hundreds_and_progress_is_told(shell: Shell) -> None:
    app = shell.stack.app
    keys = app.repositories(10_000)
    app.add(app.workspace(), *keys[5000:7000])
    await shell.stack.priorityd("sync")
    code, out, err = await shell.queue("recent-prs", "--stdin", "--json", stdin="\n".join(map(str, keys)))
    assert code == 0
    report = json.loads(out)
    assert (report["queued"], report["look_ups"]) == (10_000, 20)
    assert report["by_priority"] == {"high": 2000, "medium": 8000, "low": 0}
    assert [UUID(each["repositoryId"]) for each in shell.data] == keys[5000:7000] + keys[:5000] + keys[7000:]
    progress = [line for line in err.splitlines() if line.endswith("of 10,000 jobs queued")]
    assert len(progress) == len(shell.api.requests) - 1


async def test_a_terminal_is_shown_a_bar(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    shown = b""

    def read() -> bytes:
        try:
            return os.read(ours, 4096)
        except OSError:  # the other side is closed
            return b""

    process = await open_module(
        "priorityd",
        "queue",
        "reviews",
        str(uuid4()),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=shell.environment(TERM="xterm"),
    )
    os.close(theirs)
    async with process:
        while part := await anyio.to_thread.run_sync(read):
            shown += part
        assert await process.wait() == 0
    os.close(ours)
    assert b"Queueing" in shown
    assert b"100%" in shown


async def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    program = (
        "import sys\nfrom priorityd.daemon.cli import cli\n"
        "try: cli(['queue', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'inngest', 'supabase', 'pydantic', 'anyio', 'httpx'} & set(sys.modules)))"
    )
    done = await anyio.run_process([*PYTHON, "-c", program])
    assert done.stdout.decode().splitlines()[-1] == "[]"
