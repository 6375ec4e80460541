"""What the service that this replaces got wrong, each as a test that passes here.

It failed completely at 800 repositories (an id list in the URL), saw only 1,000 rows of 2,000 (the API's row
cap), would have downgraded everything after a failed read of the memberships, and downgraded manual
overrides.
"""

from __future__ import annotations

import json

import pytest

from tests.support.stack import Stack


async def test_five_thousand_workspace_repositories_in_one_sync(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(6000)
    app.add(workspace, *repositories[:5000])
    code, out, _ = await stack.priorityd("sync", "--json")
    assert code == 0
    first = json.loads(out)
    assert (first["examined"], first["workspace_repos"], first["tracked_only_repos"]) == (6000, 5000, 1000)
    assert (first["priority_changes"], first["errors"]) == (5000, [])
    assert app.wrong_rows() == 0
    _, out, _ = await stack.priorityd("sync", "--json")
    assert json.loads(out)["priority_changes"] == 0


async def test_a_failing_read_of_the_memberships_downgrades_nothing(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(100)
    app.add(workspace, *repositories)
    assert (await stack.priorityd("sync"))[0] == 0
    app.connection.execute("revoke select on workspace_repositories from service_role")
    for command in (["sync"], ["sync", "--repository", str(repositories[0])]):
        code, _, err = await stack.priorityd(*command)
        assert code == 76
        assert "grant select on public.workspace_repositories to service_role" in err
    assert {app.row(repository) for repository in repositories} == {("high", True, 1)}


@pytest.mark.parametrize("priority", ["high", "low"])
async def test_a_manual_override_survives_every_sync(stack: Stack, priority: str) -> None:
    app = stack.app
    repository = app.repository()
    assert (await stack.priorityd("pin", str(repository), priority))[0] == 0
    for _ in range(2):
        assert (await stack.priorityd("sync"))[0] == 0
        assert app.row(repository) == (priority, False, 0)
    assert (await stack.priorityd("unpin", str(repository)))[0] == 0
    assert app.row(repository) == ("medium", False, 0)


async def test_a_high_row_outside_workspaces_is_taken_for_deliberate(stack: Stack) -> None:
    app = stack.app
    repository = app.repository(tracked=False)
    app.track(repository, priority="high")
    assert (await stack.priorityd("sync"))[0] == 0
    assert app.row(repository) == ("high", False, 0)
