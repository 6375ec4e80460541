"""The application guide's TypeScript: type-checked, and run with npm's current clients on the sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from priorityd.core.inngest.run_priority import run_priority_expression
from tests.support.daemon_process import PLAIN, free_port
from tests.support.event_api import EVENT_KEY
from tests.support.faults import misbehave
from tests.support.inngest import StandIn
from tests.support.patience import PATIENCE_SECONDS
from tests.support.repository import DOCS
from tests.support.stack import Stack

GUIDE = (DOCS / "application.md").read_text()
SNIPPETS = {
    block.partition("\n")[0].removeprefix("// "): block
    for block in re.findall(r"```ts\n(.*?)```", GUIDE, re.DOTALL)
}
AROUND = Path(__file__).parent / "typescript"
# npm may take minutes.
pytestmark = pytest.mark.timeout(600)

FUNCTION = "my-app-capture-repository-sync"
_NODE = ["node", "--experimental-websocket"]  # Node 20 has WebSocket behind that option; later ones take it


def test_every_snippet_is_a_file() -> None:
    assert list(SNIPPETS) == ["clients.ts", "queue.ts", "ordered.ts", "capture.ts"]
    for page in DOCS.glob("*.md"):
        assert page.name == "application.md" or "```ts" not in page.read_text(), page


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the snippets are as JavaScript; the compiler has found nothing wrong with them."""
    directory = tmp_path_factory.mktemp("typescript")
    shutil.copytree(AROUND, directory, dirs_exist_ok=True)
    for name, text in SNIPPETS.items():
        (directory / name).write_text(text)
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=directory, check=True, timeout=400)
    checked = subprocess.run(["npx", "tsc"], cwd=directory, capture_output=True, text=True, timeout=180)
    assert checked.returncode == 0, checked.stdout
    return directory / "built"


class Application:
    """An application that has copied the snippets."""

    def __init__(self, built: Path, stack: Stack, events: StandIn) -> None:
        self.stack = stack
        self.events = events.api
        self.words = ""
        self._built = built
        self.environment = {
            "PATH": os.environ["PATH"],
            "SUPABASE_URL": stack.server.url,
            "SUPABASE_SERVICE_ROLE_KEY": stack.server.service_role_key,
            "INNGEST_BASE_URL": events.url,
            "INNGEST_EVENT_KEY": EVENT_KEY,
        }

    async def answer(self, function: str, *arguments: object) -> dict[str, Any]:
        """What a function returned or threw; `words` is what it has printed beside that."""
        module, _, name = function.partition(".")
        node = await asyncio.create_subprocess_exec(
            *_NODE, "call.js", module, name, json.dumps(arguments),
            cwd=self._built, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, words = await node.communicate()
        self.words = words.decode()
        told: dict[str, Any] = json.loads(out.splitlines()[-1])
        return told

    async def call(self, function: str, *arguments: object) -> Any:
        """What it returned."""
        told = await self.answer(function, *arguments)
        assert "returned" in told, told
        return told["returned"]

    @asynccontextmanager
    async def function(self, **settings: str) -> AsyncIterator[Runs]:
        """Its function, as Inngest's executor reaches it."""
        node = await asyncio.create_subprocess_exec(
            *_NODE, "host.js",
            cwd=self._built, env=self.environment | {"INNGEST_DEV": "1"} | settings,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert node.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                port = int(await node.stdout.readline())
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, verify=PLAIN
            ) as http:
                yield Runs(http)
        finally:
            node.kill()
            await node.wait()

    def job(self, job_id: str) -> tuple[Any, ...]:
        """A row of background_jobs: status, whether it has started, completed, failed, and the error."""
        row = self.stack.database.connect().execute(
            "select status, started_at is not null, completed_at is not null, failed_at is not null, error"
            " from background_jobs where id = %s",
            (job_id,),
        )
        found = row.fetchone()
        assert found is not None
        return found


class Runs:
    """What Inngest's executor does with a function: step by step, each result given back with the next call.

    Source: inngest/inngest, `docs/SDK_SPEC.md` at commit 2ac58c8, and what the SDK (4.24.0) answers.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def run(self, event: dict[str, Any], function: str = FUNCTION) -> dict[str, Any] | None:
        """To the end, without a second try; the error of the step that failed, if one did."""
        steps: dict[str, Any] = {}
        while True:
            answer = await self._call(event, function, steps)
            if answer.status_code != 206:
                assert answer.status_code == 200, answer.text
                return None
            for step in answer.json():
                if step["op"] == "StepError":
                    return step["error"]
                steps[step["id"]] = {"type": "data", "data": step.get("data")}

    async def fail(self, event: dict[str, Any], error: dict[str, Any]) -> None:
        """What Inngest does when it has given up: the failure is an event too."""
        data = {"function_id": FUNCTION, "run_id": "run", "error": error, "event": event}
        await self.run(
            {"name": "inngest/function.failed", "id": "f", "ts": 1, "data": data}, f"{FUNCTION}-failure"
        )

    async def _call(self, event: dict[str, Any], function: str, steps: dict[str, Any]) -> httpx.Response:
        context = {
            "run_id": "run",
            "attempt": 0,
            "disable_immediate_execution": False,
            "use_api": False,
            "stack": {"stack": list(steps), "current": len(steps)},
        }
        body = {
            "event": event,
            "events": [event],
            "steps": steps,
            "ctx": context,
            "version": 2,
            "use_api": False,
        }
        return await self._http.post("/api/inngest", params={"fnId": function, "stepId": "step"}, json=body)


@pytest.fixture
def app(built: Path, stack: Stack, event_api: StandIn) -> Application:
    return Application(built, stack, event_api)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def sync_event(repository: object, **data: object) -> dict[str, Any]:
    data = {"repositoryId": str(repository), "priority": 100, **data}
    return {"name": "capture/repository.sync.graphql", "id": "e", "ts": 1, "data": data}


@pytest.mark.supabase_js
async def test_many_are_queued_with_their_priorities_and_the_malformed_are_told(app: Application) -> None:
    workspace_repository, untracked = await in_a_workspace(app), uuid4()
    jobs = [
        {"repository_id": str(workspace_repository), "repository_name": "acme/web", "data": {"days": 30}},
        {"repository_id": "no uuid"},
        {"repository_id": str(untracked)},
    ]
    (refused,) = await app.call("queue.queueJobs", "recent-prs", jobs)
    assert (refused["position"], refused["reason"]) == (2, "has no repository_id that is a uuid")
    first, second = app.events.named("capture/repository.sync.graphql")
    assert (first["data"]["priority"], first["data"]["days"]) == (100, 30)
    assert first["data"]["metadata"]["isWorkspaceRepo"] is True
    assert (second["data"]["priority"], second["data"]["metadata"]["priorityLookup"]) == (50, "untracked")


@pytest.mark.supabase_js
async def test_one_is_queued_once_by_its_id_and_a_malformed_one_is_an_error(app: Application) -> None:
    repository = await in_a_workspace(app)
    await app.call("queue.queueJob", "pr-details", str(repository), {"prNumbers": [12]})
    (event,) = app.events.named("capture/pr.details.graphql")
    assert (event["data"]["priority"], event["data"]["prNumbers"]) == (100, [12])
    told = await app.answer("queue.queueJob", "pr-details", "no uuid")
    assert told == {"threw": "The job has no repository_id that is a uuid"}
    job = {"repository_id": str(repository), "job_id": str(uuid4())}
    for _ in range(2):
        assert await app.call("queue.queueJobs", "reviews", [job]) == []
    assert len(app.events.named("capture/pr.reviews")) == 1


@pytest.mark.supabase_js
@pytest.mark.parametrize("how", ["an error", "nobody there", "no answer"])
async def test_without_a_look_up_jobs_are_queued_at_medium_and_it_is_said(
    app: Application, silent: str, how: str
) -> None:
    repository = await in_a_workspace(app)
    if how == "an error":
        misbehave(app.stack.server, "rest/fail?status=503&function=build_repository_job_events", seconds=60)
    elif how == "nobody there":
        app.environment["SUPABASE_URL"] = f"http://127.0.0.1:{free_port()}"
    else:
        app.environment["SUPABASE_URL"] = silent
    job = {
        "repository_id": str(repository),
        "repository_name": "acme/web",
        "data": {"metadata": {"by": "cron"}},
    }
    assert await app.call("queue.queueJobs", "comments", [job]) == []
    (event,) = app.events.named("capture/pr.comments")
    assert event["data"] == {
        "repositoryId": str(repository),
        "repositoryName": "acme/web",
        "priority": 50,
        "metadata": {
            "isWorkspaceRepo": None,
            "workspaceCount": None,
            "originalPriority": None,
            "priority": "medium",
            "priorityScore": 50,
            "priorityLookup": "failed",
            "by": "cron",
        },
    }
    assert "queueing at medium" in app.words


@pytest.mark.supabase_js
async def test_a_call_that_is_wrong_is_an_error_and_queues_nothing(app: Application) -> None:
    told = await app.answer("queue.queueJobs", "no-such-type", [{"repository_id": str(uuid4())}])
    assert "there is no job type 'no-such-type'" in told["threw"]
    assert app.events.accepted == []


@pytest.mark.supabase_js
async def test_jobs_wait_in_order_in_the_database(app: Application) -> None:
    repository = await in_a_workspace(app)
    job_id = str(uuid4())
    jobs = [{"repository_id": str(repository), "job_id": job_id}, {"repository_id": str(uuid4())}]
    answer = await app.call("ordered.queueInOrder", "recent-prs", jobs)
    assert answer["queued"] == 1
    assert answer["jobs"][0]["job_id"] == job_id
    shown = re.findall(r"\w+", SNIPPETS["ordered.ts"].partition("// {")[2])
    assert set(shown) - {"2"} == set(answer) | set(answer["jobs"][0]) | set(answer["refused"][0])
    assert app.job(job_id)[0] == "queued"
    told = await app.answer("ordered.queueInOrder", "no-such-type", jobs)
    assert "there is no job type" in told["threw"], "an error is not returned in silence"


@pytest.mark.supabase_js
async def test_the_function_reports_its_start_and_its_end(app: Application) -> None:
    repository, job_id = await in_order(app)
    async with app.function() as runs:
        assert await runs.run(sync_event(repository, jobId=job_id)) is None
        assert app.job(job_id) == ("completed", True, True, False, None)
        assert await runs.run(sync_event(repository)) is None, (
            "queued directly: there is nothing to report on"
        )


@pytest.mark.supabase_js
async def test_the_function_reports_that_inngest_has_given_up(app: Application) -> None:
    repository, job_id = await in_order(app)
    event = sync_event(repository, jobId=job_id)
    async with app.function(BROKEN_REPOSITORY=str(repository)) as runs:
        error = await runs.run(event)
        assert error is not None
        assert error["message"] == "GitHub says no"
        assert app.job(job_id) == ("processing", True, False, False, None)
        await runs.fail(event, error)
    assert app.job(job_id) == ("failed", True, False, True, "GitHub says no")


@pytest.mark.supabase_js
async def test_a_report_that_fails_fails_its_step(app: Application) -> None:
    repository, job_id = await in_order(app)
    app.stack.database.connect().execute("revoke update on background_jobs from service_role")
    async with app.function() as runs:
        error = await runs.run(sync_event(repository, jobId=job_id))
    assert error is not None
    assert error["message"] == "permission denied for table background_jobs"


@pytest.mark.supabase_js
async def test_the_function_has_the_priority_that_inngest_obeys(app: Application) -> None:
    options = await app.call("options.of", "capture", "captureRepository")
    assert options["priority"] == {"run": run_priority_expression()}
    assert options["triggers"] == [{"event": "capture/repository.sync.graphql"}]


async def in_a_workspace(app: Application) -> Any:
    """A tracked repository in a workspace, with the priority to match."""
    repository = app.stack.app.repository()
    app.stack.app.add(app.stack.app.workspace(), repository)
    code, _, words = await app.stack.priorityd("sync")
    assert code == 0, words
    return repository


async def in_order(app: Application) -> tuple[Any, str]:
    """Such a repository with a job that waits in order."""
    repository, job_id = await in_a_workspace(app), str(uuid4())
    await app.call(
        "ordered.queueInOrder", "recent-prs", [{"repository_id": str(repository), "job_id": job_id}]
    )
    return repository, job_id
