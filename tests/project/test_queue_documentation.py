"""What the application guide says is what the code does: configurations to paste, job types, examples, SQL.

Its TypeScript is type-checked and run by `test_typescript.py`.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any
from uuid import uuid4

import inngest

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.inngest.run_priority import run_priority_expression
from priorityd.core.jobs.events import EVENT_NAMES, REPOSITORY_SYNC, Job, event_data
from tests.support.database import Database
from tests.support.repository import DOCS
from tests.support.world import session

GUIDE = (DOCS / "application.md").read_text()


def blocks(language: str, holding: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return [block for block in found if holding in block]


def test_the_configurations_to_paste_hold_the_recommended_expression() -> None:
    for language, assigned in (("ts", 'run: "'), ("python", 'run="')):
        (block,) = blocks(language, "concurrency")
        assert f'{assigned}{run_priority_expression()}"' in block
        assert REPOSITORY_SYNC in block


def test_the_configuration_for_python_is_what_the_sdk_registers() -> None:
    (block,) = blocks("python", "inngest.Priority")
    names: dict[str, Any] = {"inngest": inngest, "client": inngest.Inngest(app_id="app", is_production=False)}
    exec(block, names)
    config = names["capture_repository_sync"].get_config("http://127.0.0.1/api/inngest").main
    assert config.priority.run == run_priority_expression()
    assert config.triggers[0].event == REPOSITORY_SYNC


def test_what_the_guide_imports_is_there() -> None:
    for block in blocks("python", "import"):
        compile(block, "application.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for line in re.findall(r"^(?:from|import) .*$", block, re.MULTILINE):
            exec(line, {})


def test_every_job_type_is_in_the_guide_with_its_event() -> None:
    table = GUIDE[GUIDE.index("| job type | event |") : GUIDE.index("An event's `data`")]
    documented = {
        job_type: event
        for types, event in re.findall(r"^\| (`[a-z].*`) \| `(capture/[a-z.]+)` \|$", table, re.MULTILINE)
        for job_type in re.findall(r"`([a-z-]+)`", types)
    }
    assert documented == EVENT_NAMES


def test_the_example_of_an_event_has_the_fields_that_events_have() -> None:
    (block,) = blocks("json", "originalPriority")
    row = RepositoryPriority("high", is_workspace_repo=True, workspace_count=2)
    example = json.loads(block)
    data = event_data(Job("recent-prs", uuid4(), "acme/web"), row)
    assert example | {"repositoryId": data["repositoryId"]} == data


def test_typescript_knows_the_same_job_types() -> None:
    (block,) = blocks("ts", "EVENT_NAMES = {")
    shown = block[: block.index("};")]
    assert dict(re.findall(r"""^  "?([a-z-]+)"?: "(.*)",$""", shown, re.MULTILINE)) == EVENT_NAMES


def test_the_sql_does_what_its_comment_says(database: Database) -> None:
    world = session(database)
    web, api = world.tracked(), world.tracked()
    for name, repository in (("web", web), ("api", api)):
        world.execute("update repositories set owner = 'acme', name = %s where id = %s", name, repository)
    workspace = world.add(web)
    world.execute("update workspaces set slug = 'platform' where id = %s", workspace)
    world.sync(web, api)
    in_order, events, priorities = (world.value(block) for block in blocks("sql", "select"))
    assert (in_order["queued"], in_order["refused"]) == (1, [])
    assert in_order["jobs"][0]["repository_id"] == str(web)
    names = {event["data"]["repositoryName"]: event["data"]["priority"] for event in events["events"]}
    assert names == {"acme/web": 100, "acme/api": 50}
    assert {key: row["priority"] for key, row in priorities.items()} == {str(web): "high", str(api): "medium"}
