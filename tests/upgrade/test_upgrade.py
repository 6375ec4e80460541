"""Old and new together: each daemon with the migrations of the other, as `core.database.schema` has it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from priorityd.core.database.schema import APPLY_MIGRATIONS, MIGRATION_SET
from tests.support.daemon_process import eventually, priorityd
from tests.support.database import Database
from tests.support.stack import Stack, stack
from tests.upgrade.contract import CALLS, RELEASES, call, populate, unreadable

__all__ = ["stack"]  # a fixture
FILES = sorted(RELEASES.glob("*.json"))


# The current migrations with every released daemon.


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_call_of_a_released_daemon_is_answered_in_words_that_it_can_read(
    file: Any, database: Database
) -> None:
    release = json.loads(file.read_text())
    assert release["set"] <= MIGRATION_SET
    populate(database.connect())
    connection = database.connect("service_role")
    for asked in release["calls"]:
        answer = call(connection, asked["function"], asked["arguments"])
        assert list(unreadable(answer, asked["answer"])) == [], asked["function"]
    for trigger in release["triggers"]:
        connection.execute("select sync_workspace_priorities('{}', %s)", (trigger,))


def test_every_function_that_is_open_to_callers_is_in_the_contract(database: Database) -> None:
    connection = database.connect()
    opened = connection.execute("select unnest(functions)::text from priorityd.migrations").fetchall()
    assert {name for (name,) in opened} == {name for name, _ in CALLS}


@pytest.mark.parametrize(
    ("answer", "complaints"),
    [
        ({"a": 1.5, "b": [{"c": "x"}], "d": None, "more": 1}, []),
        ({"a": "1", "b": [{"c": "x"}], "d": 1}, ["answer.a is str, not number"]),
        ({"b": [{"c": "x"}], "d": None}, ["answer has no a"]),
        ({"a": 1, "b": [{}], "d": None}, ["answer.b[] has no c"]),
        ({"a": 1, "b": [], "d": None}, ["answer.b is empty"]),
        ({"a": True, "b": {}, "d": None}, ["answer.a is bool, not number", "answer.b is dict, not list"]),
    ],
)
def test_a_field_that_is_gone_or_has_become_something_else_is_noticed(
    answer: dict[str, Any], complaints: list[str]
) -> None:
    assert list(unreadable(answer, {"a": 1, "b": [{"c": "y"}], "d": None})) == complaints


# The current daemon with older and newer migrations.


async def test_an_older_set_is_refused_naming_the_command_that_brings_the_newer(stack: Stack) -> None:
    stack.app.connection.execute(
        "update priorityd.migrations set set_number = 0 where unit = '20250103001900 functions'"
    )
    code, _, err = await priorityd("sync", **stack.settings)
    assert (code, APPLY_MIGRATIONS in err) == (76, True)
    async with stack.daemon(ready=False) as daemon:
        assert await daemon.process.wait() == 76
        error = daemon.logged("fatal")[0]["error"]
    assert "at migration set 0, and this version needs set 1" in error
    assert APPLY_MIGRATIONS in error


async def test_a_newer_set_is_accepted(stack: Stack) -> None:
    stack.app.connection.execute("update priorityd.migrations set set_number = set_number + 1")
    async with stack.daemon():
        workspace, repository = stack.app.workspace(), stack.app.repository()
        stack.app.add(workspace, repository)
        await eventually(lambda: stack.app.row(repository)[0] == "high")


async def test_a_newer_set_that_does_not_work_with_this_version_is_refused(stack: Stack) -> None:
    stack.app.connection.execute("update priorityd.migrations set set_number = set_number + 1")
    (definition,) = stack.app.connection.execute(
        "select pg_get_functiondef('workspace_priority_schema_version'::regproc)"
    ).fetchone() or ("",)
    newer = definition.replace("'works_from', 1", "'works_from', 2")
    assert newer != definition
    stack.app.connection.execute(newer.encode())
    async with stack.daemon(ready=False) as daemon:
        assert await daemon.process.wait() == 76
        assert "upgrade priorityd" in daemon.logged("fatal")[0]["error"]
