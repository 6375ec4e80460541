"""The operators' commands: what they print, and how they fail."""

from __future__ import annotations

import json
from uuid import uuid4

from tests.acceptance.conftest import Stack
from tests.acceptance.daemon_process import free_port, priorityd


async def test_a_dry_run_shows_what_would_change_and_changes_nothing(stack: Stack) -> None:
    app = stack.app
    workspace, repository, other = app.workspace(), app.repository(), app.repository()
    app.add(workspace, repository)
    code, out, _ = await stack.priorityd("sync", "--dry-run")
    assert code == 0
    assert f"{repository}  medium → high  in 1 workspace\n" in out
    assert str(other) not in out
    assert "1 would change of 2 looked at" in out
    assert app.row(repository) == ("medium", False, 0)


async def test_one_repository_can_be_synced_alone(stack: Stack) -> None:
    app = stack.app
    workspace, wanted, other = app.workspace(), app.repository(), app.repository()
    app.add(workspace, wanted, other)
    code, out, _ = await stack.priorityd("sync", "--repository", str(wanted), "--json")
    assert (code, json.loads(out)["priority_changes"]) == (0, 1)
    assert (app.row(wanted)[0], app.row(other)[0]) == ("high", "medium")


async def test_a_locked_row_makes_a_sync_fail_in_words(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    app.add(workspace, repository)
    holder = stack.database.connect(autocommit=False)
    holder.execute("select from tracked_repositories for update")
    code, _, err = await stack.priorityd("sync")
    assert code == 1
    assert "locked" in err


async def test_explain_says_why(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    app.add(workspace, repository)
    _, out, _ = await stack.priorityd("explain", str(repository))
    assert "That is wrong: it should be high" in out
    assert (await stack.priorityd("sync"))[0] == 0
    _, out, _ = await stack.priorityd("explain", str(repository))
    assert out.startswith(f"Repository {repository} is high: 1 workspace holds it.\n")
    assert str(workspace) in out
    code, out, err = await stack.priorityd("explain", str(uuid4()))
    assert (code, out) == (1, "")
    assert "neither tracked nor in a workspace" in err


async def test_status_counts_and_says_whether_the_daemon_answers(stack: Stack) -> None:
    app = stack.app
    app.add(app.workspace(), app.repository())
    port = free_port()
    code, out, _ = await stack.priorityd("status", PRIORITYD_HTTP_PORT=port)
    assert code == 0
    assert f"no answer at 127.0.0.1:{port}" in out
    async with stack.daemon() as daemon:
        _, out, _ = await stack.priorityd("status", "--json", PRIORITYD_HTTP_PORT=daemon.port)
    status = json.loads(out)
    assert status["daemon"]["ready"] is True
    assert status["snapshot"]["repositories"] == [{"is_workspace_repo": True, "priority": "high", "count": 1}]


async def test_rollback_asks_for_yes_and_takes_everything_back(stack: Stack) -> None:
    app = stack.app
    workspace, repository, pinned = app.workspace(), app.repository(), app.repository()
    app.add(workspace, repository, pinned)
    await stack.priorityd("pin", str(pinned), "low")
    await stack.priorityd("sync")
    code, _, err = await stack.priorityd("rollback")
    assert (code, app.row(repository)[0]) == (2, "high")
    assert "--yes" in err
    code, out, _ = await stack.priorityd("rollback", "--yes")
    assert (code, out) == (0, "2 repositories rolled back\n")
    assert (app.row(repository), app.row(pinned)) == (("medium", False, 0), ("low", False, 0))


async def test_check_finds_a_good_set_up_good(stack: Stack) -> None:
    code, out, _ = await stack.priorityd("check", "--json", PRIORITYD_HTTP_PORT=free_port())
    report = json.loads(out)
    assert (code, report["ok"]) == (0, True)
    assert {finding["outcome"] for finding in report["findings"]} == {"ok"}
    assert [finding["step"] for finding in report["findings"]] == [
        "metrics port",
        "Supabase URL",
        "key and functions",
        "role",
        "migrations",
        "publication",
        "removals",
        "change stream",
    ]


async def test_check_names_what_is_wrong_and_what_to_do(stack: Stack) -> None:
    stack.app.connection.execute("alter publication supabase_realtime drop table workspace_repositories")
    code, out, _ = await stack.priorityd("check", PRIORITYD_HTTP_PORT=free_port())
    assert code == 1
    assert (
        "FAILED   publication: not in the publication supabase_realtime: public.workspace_repositories" in out
    )
    assert "alter publication supabase_realtime add table public.workspace_repositories;" in out
    assert "FAILED   change stream" in out


async def test_check_tells_a_refused_key_from_an_unreachable_url(stack: Stack) -> None:
    code, out, _ = await stack.priorityd("check", SUPABASE_SERVICE_ROLE_KEY="nonsense")
    assert code == 77
    assert "FAILED   key and functions" in out
    code, out, _ = await priorityd(
        "check", SUPABASE_URL=f"http://127.0.0.1:{free_port()}", SUPABASE_SECRET_KEY="x"
    )
    assert code == 69
    assert "FAILED   Supabase URL" in out


async def test_unreachable_is_69_for_every_command() -> None:
    settings = {
        "SUPABASE_URL": f"http://127.0.0.1:{free_port()}",
        "SUPABASE_SECRET_KEY": "sb_secret_not_shown",
    }
    for command in (
        ["sync"],
        ["status"],
        ["explain", str(uuid4())],
        ["unpin", str(uuid4())],
        ["rollback", "--yes"],
    ):
        code, out, err = await priorityd(*command, **settings)
        assert (code, out) == (69, ""), command
        assert err.startswith("priorityd: ")
        assert "sb_secret_not_shown" not in err


async def test_what_is_no_repository_id_is_wrong_usage(stack: Stack) -> None:
    code, _, err = await stack.priorityd("explain", "not-an-id")
    assert code == 2
    assert "not-an-id" in err
