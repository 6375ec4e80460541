"""What the README says about queueing is what the code does: configurations to paste, job types, examples."""

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
from tests.support.repository import README


def blocks(language: str, holding: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
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


def test_what_the_readme_imports_is_there() -> None:
    for block in blocks("python", "import"):
        compile(block, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for line in re.findall(r"^(?:from|import) .*$", block, re.MULTILINE):
            exec(line, {})


def test_every_job_type_is_in_the_readme_with_its_event() -> None:
    table = README[README.index("| job type | event |") : README.index("An event's `data`")]
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


def test_the_function_for_other_languages_takes_and_answers_what_is_shown(database: Database) -> None:
    (block,) = blocks("ts", "queue_repository_jobs")
    connection = database.connect("service_role")
    call, _, answer = block.partition("// data:")
    repository = database.connect().execute("insert into repositories default values returning id").fetchone()
    assert repository is not None
    jobs = [
        {
            "repository_id": str(repository[0]),
            "repository_name": "acme/web",
            "data": {},
            "job_id": str(uuid4()),
        },
        {"repository_id": str(uuid4()), "job_id": str(uuid4())},
    ]
    row = connection.execute(
        "select queue_repository_jobs(p_jobs => %s, p_job_type => 'recent-prs')", (json.dumps(jobs),)
    ).fetchone()
    assert row is not None
    assert set(re.findall(r"\b(\w+):", call)) - {"days"} == {"p_job_type", "p_jobs", "data"} | set(jobs[0])
    shown = set(re.findall(r"\w+", answer)) - {"2"}
    assert shown == set(row[0]) | set(row[0]["jobs"][0]) | set(row[0]["refused"][0])


def test_the_function_that_builds_events_takes_and_answers_what_is_shown(database: Database) -> None:
    (block,) = blocks("ts", "build_repository_job_events")
    job = {"repository_id": str(uuid4()), "job_id": str(uuid4())}
    row = (
        database.connect("service_role")
        .execute(
            "select build_repository_job_events(p_job_type => 'recent-prs', p_jobs => %s)",
            (json.dumps([job, {}]),),
        )
        .fetchone()
    )
    assert row is not None
    assert {"p_job_type", "p_jobs", *job} <= set(re.findall(r"\b(\w+):", block))
    assert re.findall(r"data\.(\w+)", block) == ["events", "refused"]
    (shown,) = re.findall(r"refused: \[\{ (.*) \}\]", block)
    assert set(shown.split(", ")) == set(row[0]["refused"][0])
