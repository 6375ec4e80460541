"""`priorityd explain`: why a repository has its priority."""

from __future__ import annotations

import json
from uuid import uuid4

from tests.support.stack import Stack


async def test_explain_answers_in_two_sentences_and_then_shows_the_evidence(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    app.connection.execute("update workspaces set name = 'Acme' where id = %s", (workspace,))
    app.add(workspace, repository)
    _, out, _ = await stack.priorityd("explain", str(repository))
    wrong, advice = out.splitlines()[0].split(". ")
    assert wrong == f"Repository {repository} is medium, which is wrong: it should be high"
    assert advice.startswith("1 workspace holds it (Acme); to fix it now, run: priorityd sync")
    code, *_ = await stack.priorityd(*advice.partition("run: priorityd ")[2].split())
    assert code == 0, "the command that it suggests fixes it"
    _, out, _ = await stack.priorityd("explain", str(repository))
    answer, *evidence = out.splitlines()
    assert answer == (
        f"Repository {repository} is high because 1 workspace holds it (Acme). "
        "Without that workspace it would be medium."
    )
    assert "priority high, is_workspace_repo true, workspace_count 1, manual priority none" in evidence[0]
    assert evidence[1].startswith(f"  in workspace Acme ({workspace}), added 20")
    assert evidence[2].endswith(" UTC  medium → high, now in a workspace  (manual)")


async def test_explain_knows_the_other_reasons_too(stack: Stack) -> None:
    app = stack.app
    tracked, pinned, untracked = app.repository(), app.repository(), app.repository(tracked=False)
    app.add(app.workspace(), untracked)
    await stack.priorityd("pin", str(pinned), "low")
    answers = {}
    for repository in (tracked, pinned, untracked):
        _, out, _ = await stack.priorityd("explain", str(repository), "--json")
        answers[repository] = json.loads(out)["answer"].removeprefix(f"Repository {repository} ")
    assert answers[tracked] == (
        "is medium because no workspace holds it and it is not pinned. "
        "It becomes high as soon as a workspace holds it."
    )
    assert answers[pinned] == (
        "is low because it is pinned to low, and no workspace holds it. "
        "It becomes high as soon as a workspace holds it."
    )
    assert answers[untracked].startswith("has no priority, because it is not tracked. 1 workspace holds it (")
    code, out, err = await stack.priorityd("explain", str(uuid4()))
    assert (code, out) == (1, "")
    assert "priorityd: no repository has the id " in err


async def test_a_fourth_priority_can_be_pinned_and_is_explained(stack: Stack) -> None:
    app, repository = stack.app, stack.app.repository()
    code, _, err = await stack.priorityd("pin", str(repository), "critical")
    assert code == 1
    assert "the application has no priority 'critical', only high, medium, low" in err
    app.connection.execute("alter type repository_priority add value 'critical'")
    _, out, _ = await stack.priorityd("pin", str(repository), "critical")
    assert "medium → critical" in out
    workspace = app.workspace()
    app.connection.execute("update workspaces set name = 'Acme' where id = %s", (workspace,))
    app.add(workspace, repository)
    await stack.priorityd("sync")
    _, out, _ = await stack.priorityd("explain", str(repository))
    assert out.splitlines()[0] == (
        f"Repository {repository} is critical because it was set to critical. "
        "Workspaces don't lower it: 1 workspace holds it (Acme)."
    )
    app.connection.execute("alter type repository_priority add value 'urgent'")
    app.connection.execute("update tracked_repositories set priority = 'urgent', manual_priority = null")
    _, out, _ = await stack.priorityd("explain", str(repository))
    assert f"Repository {repository} is urgent, which is wrong: it should be high." in out


async def test_times_are_utc_in_whatever_zone_the_database_is(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    app.add(workspace, repository)
    app.connection.execute(
        "do $$ begin"
        " execute format('alter database %I set timezone = $z$Asia/Tokyo$z$', current_database());"
        " end $$"
    )
    assert (await stack.priorityd("sync"))[0] == 0
    assert (await stack.priorityd("queue", "reviews", str(repository), "--mode", "ordered"))[0] == 0
    app.connection.execute(
        "update repository_priority_changes set changed_at = '2025-01-03 23:34:56Z';"
        "update workspace_repositories set added_at = '2025-01-03 22:34:56Z';"
        "update priorityd.ordered_jobs set queued_at = '2025-01-03 21:34:56Z'"
    )
    _, explained, _ = await stack.priorityd("explain", str(repository))
    assert "2025-01-03 23:34:56 UTC" in explained
    assert ", added 2025-01-03 22:34 UTC" in explained
    _, listed, _ = await stack.priorityd("jobs", "list")
    assert "queued 2025-01-03 21:34:56 UTC" in listed
    app.connection.execute(
        "set timezone = 'Asia/Tokyo'; alter table workspace_repositories alter column added_at type timestamp"
    )
    _, explained, _ = await stack.priorityd("explain", str(repository))
    assert ", added 2025-01-03 22:34 UTC" in explained, "a time without a zone is in the database's"
