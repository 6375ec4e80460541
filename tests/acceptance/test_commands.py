"""The operators' commands: what they print, and how they fail."""

from __future__ import annotations

import json
import re
import subprocess
from uuid import uuid4

from priorityd.core import __version__
from tests.support.daemon_process import (
    environment,
    eventually,
    free_port,
    priorityd,
    start_daemon,
)
from tests.support.faults import misbehave
from tests.support.programs import open_module
from tests.support.stack import Stack
from tests.support.terminal import terminal


async def test_a_dry_run_shows_what_would_change_and_changes_nothing(stack: Stack) -> None:
    app = stack.app
    workspace, repository, other = app.workspace(), app.repository(), app.repository()
    app.add(workspace, repository)
    code, out, err = await stack.priorityd("sync", "--dry-run")
    assert (code, err) == (10, "")
    assert f"{repository}  medium → high  in 1 workspace\n" in out
    assert str(other) not in out
    assert "1 would change of 2 looked at" in out
    assert app.row(repository) == ("medium", False, 0)
    code, out, _ = await stack.priorityd("sync", "--dry-run", "--json")
    assert (code, json.loads(out)["priority_changes"]) == (10, 1)
    assert (await stack.priorityd("sync"))[0] == 0
    code, out, _ = await stack.priorityd("sync", "--dry-run")
    assert code == 0
    assert out.startswith("0 would change of 2 looked at")


async def test_a_dry_run_that_can_not_see_everything_fails_rather_than_show_a_part(stack: Stack) -> None:
    app = stack.app
    app.add(app.workspace(), app.repository())
    failure = "status=400&sqlstate=23514&message=no&function=resync_workspace_priorities_page"
    misbehave(stack.server, f"rest/fail?{failure}&seconds=60")
    assert (await stack.priorityd("sync", "--dry-run"))[0] == 1


async def test_a_dry_run_tells_apart_what_is_only_counted_anew(stack: Stack) -> None:
    app = stack.app
    repository, first, second = app.repository(), app.workspace(), app.workspace()
    app.add(first, repository)
    await stack.priorityd("sync")
    app.add(second, repository)
    _, out, _ = await stack.priorityd("sync", "--dry-run")
    assert f"{repository}  high as before  in 2 workspaces\n" in out
    assert "         1  high as before, but with another flag or number of workspaces\n" in out


async def test_a_long_sync_draws_a_bar_on_a_terminal_and_none_elsewhere(stack: Stack) -> None:
    app = stack.app
    app.add(app.workspace(), *app.repositories(20))
    with terminal() as (screen, tty):
        env = environment(**stack.settings, TERM="xterm")
        process = await open_module("priorityd", "sync", env=env, stdout=subprocess.DEVNULL, stderr=tty)
        async with process:
            await process.wait()
        assert re.search(r"Looking at repositories.*20/20", screen())
    _, out, err = await stack.priorityd("sync")
    assert (out.count("\n"), err) == (1, "")


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


async def test_a_sync_names_the_rows_that_are_refused(stack: Stack) -> None:
    app = stack.app
    named, other = app.repositories(2)
    nameless = app.track(None, priority="high", is_workspace_repo=True)
    app.connection.execute("update repositories set owner = 'acme', name = 'web' where id = %s", (named,))
    app.add(app.workspace(), named, other)
    app.connection.execute(
        """create function no() returns trigger language plpgsql as $$
        begin raise exception using errcode = '42501', message = 'frozen'; end $$;
        create trigger no before update on tracked_repositories for each row execute function no()"""
    )
    code, out, err = await stack.priorityd("sync")
    assert code == 1
    assert "0 changed of 3" in out
    assert f"priorityd: acme/web ({named}): frozen (42501)\n" in err
    assert f"priorityd: the tracked row {nameless}, which has no repository: frozen (42501)\n" in err
    code, out, _ = await stack.priorityd("sync", "--json")
    assert (code, len(json.loads(out)["refused"])) == (1, 3)


async def test_many_rows_refused_for_one_reason_are_one_line(stack: Stack) -> None:
    app = stack.app
    app.add(app.workspace(), *app.repositories(50))
    app.connection.execute(
        """create function no() returns trigger language plpgsql as $$ begin raise 'frozen'; end $$;
        create trigger no before update on tracked_repositories for each row execute function no()"""
    )
    code, _, err = await stack.priorityd("sync")
    assert code == 1
    assert err.endswith("priorityd: 40 more: frozen (P0001)\n")
    assert err.count("\n") == 11


async def test_a_rollback_that_somebody_stopped_waiting_for_says_how_to_look(stack: Stack) -> None:
    misbehave(stack.server, "rest/page?status=504&function=rollback_workspace_priorities", seconds=60)
    code, _, err = await stack.priorityd("rollback", "--yes")
    assert code == 69
    assert "may still be running" in err
    statement = err.split('psql "$DATABASE_URL" -c "')[1].split('"')[0]
    assert stack.app.connection.execute(statement.encode()).fetchall() is not None


async def test_explain_answers_in_two_sentences_and_then_shows_the_evidence(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    app.connection.execute("update workspaces set name = 'Acme' where id = %s", (workspace,))
    app.add(workspace, repository)
    _, out, _ = await stack.priorityd("explain", str(repository))
    wrong, advice = out.splitlines()[0].split(". ")
    assert wrong == f"Repository {repository} is medium, which is wrong: it should be high"
    assert advice.startswith("1 workspace holds it (Acme); to fix it now, type: priorityd sync")
    code, *_ = await stack.priorityd(*advice.partition("type: priorityd ")[2].split())
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
        "is medium because no workspace holds it and it is not pinned, which means medium. "
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
        f"Repository {repository} is critical because somebody has set it to critical. "
        "Workspaces don't lower it: 1 workspace holds it (Acme)."
    )
    app.connection.execute("alter type repository_priority add value 'urgent'")
    app.connection.execute("update tracked_repositories set priority = 'urgent', manual_priority = null")
    _, out, _ = await stack.priorityd("explain", str(repository))
    assert f"Repository {repository} is urgent, which is wrong: it should be high." in out


async def test_what_changes_something_tells_scripts_what_it_changed(stack: Stack) -> None:
    repository = stack.app.repository()
    _, out, _ = await stack.priorityd("pin", str(repository), "low", "--json")
    pinned = json.loads(out)
    assert (pinned["manual_priority"], pinned["changes"][0]["new_priority"]) == ("low", "low")
    _, out, _ = await stack.priorityd("unpin", str(repository), "--json")
    assert json.loads(out)["manual_priority"] is None
    _, out, _ = await stack.priorityd("rollback", "--yes", "--json")
    assert json.loads(out)["changed"] == 0


async def test_status_counts_and_says_whether_the_daemon_answers(stack: Stack) -> None:
    app = stack.app
    app.add(app.workspace(), app.repository())
    port = free_port()
    code, out, _ = await stack.priorityd("status", PRIORITYD_HTTP_PORT=port)
    assert code == 0
    assert f"no answer at 127.0.0.1:{port}" in out
    async with stack.daemon() as daemon:
        _, words, _ = await stack.priorityd("status", PRIORITYD_HTTP_PORT=daemon.port)
        _, out, _ = await stack.priorityd("status", "--json", PRIORITYD_HTTP_PORT=daemon.port)
    status = json.loads(out)
    assert status["daemon"]["ready"] is True
    for line in (
        "Daemon: ready, version ",
        "Stream: live since 20",
        "Queue: 0 pending, 0 parked\n",
        "Leader: this daemon\n",
        "Sweep: last done 20",
        "Full resync: last done 20",
        "Last change: 20",
        "Changes: 1 in the last hour",
        "Outbox: announcing nothing\n",
        "Jobs: waiting: high 0, medium 0, low 0",
    ):
        assert f"\n{line}" in words
    assert status["snapshot"]["repositories"] == [{"is_workspace_repo": True, "priority": "high", "count": 1}]


async def test_a_rollback_names_the_rows_that_are_refused(stack: Stack) -> None:
    app = stack.app
    bad, good = app.repository(tracked=False), app.repository()
    app.track(bad, organization_name="acme", repository_name="web")
    app.add(app.workspace(), bad, good)
    await stack.priorityd("sync")
    app.connection.execute(
        """create function no() returns trigger language plpgsql as $$
        begin raise exception 'frozen'; end $$;
        create trigger no before update on tracked_repositories
        for each row when (old.repository_name = 'web') execute function no()"""
    )
    code, out, err = await stack.priorityd("rollback", "--yes")
    assert (code, out) == (1, "1 repositories rolled back\n")
    assert err == f"priorityd: acme/web ({bad}): frozen (P0001)\n"
    assert (app.row(bad)[0], app.row(good)[0]) == ("high", "medium")


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
    stack.app.repository()
    code, out, _ = await stack.priorityd("check", "--json", PRIORITYD_HTTP_PORT=free_port())
    report = json.loads(out)
    assert (code, report["ok"]) == (0, True)
    assert (report["verdict"], report["next"]) == ("All is good.", "priorityd run")
    assert {finding["outcome"] for finding in report["findings"]} == {"ok"}
    assert [finding["step"] for finding in report["findings"]] == [
        "settings",
        "metrics port",
        "Supabase URL",
        "key and functions",
        "migrations",
        "role",
        "privileges",
        "memberships",
        "indexes",
        "writes",
        "publication",
        "removals",
        "change stream",
    ]


async def test_check_names_what_is_wrong_and_ends_with_what_to_do(stack: Stack) -> None:
    stack.app.connection.execute("alter publication supabase_realtime drop table workspace_repositories")
    code, out, _ = await stack.priorityd("check", PRIORITYD_HTTP_PORT=free_port())
    assert code == 1
    assert (
        "FAILED   publication: not in the publication supabase_realtime: public.workspace_repositories" in out
    )
    assert "FAILED   change stream" in out
    assert out.endswith(
        "\n\nNot good: publication, change stream. Begin with publication, then check again.\n"
        '         $ psql "$DATABASE_URL" -c "alter publication supabase_realtime add table'
        ' public.workspace_repositories"\n'
    )


async def test_check_tells_a_refused_key_from_an_unreachable_url(stack: Stack) -> None:
    code, out, _ = await stack.priorityd("check", SUPABASE_SERVICE_ROLE_KEY="nonsense")
    assert code == 77
    assert "FAILED   key and functions" in out
    assert "$ export SUPABASE_SERVICE_ROLE_KEY=" in out
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


async def test_health_says_by_its_exit_code_whether_the_daemon_is_alive_or_ready(stack: Stack) -> None:
    async with stack.daemon() as daemon:
        for arguments in ([], ["--ready"]):
            code, out, err = await stack.priorityd("health", *arguments, PRIORITYD_HTTP_PORT=daemon.port)
            assert (code, out, err) == (0, "", "")


async def test_health_tells_alive_from_ready_while_supabase_is_down() -> None:
    nowhere = {"SUPABASE_URL": f"http://127.0.0.1:{free_port()}", "SUPABASE_SERVICE_ROLE_KEY": "a-key"}
    async with start_daemon(ready=False, **nowhere) as daemon:
        await eventually(lambda: daemon.answers("/livez", 200))
        settings = {**nowhere, "PRIORITYD_HTTP_PORT": daemon.port}
        assert await priorityd("health", **settings) == (0, "", "")
        code, _, err = await priorityd("health", "--ready", **settings)
        assert code == 1
        assert "the first full resync is not done" in err


async def test_health_fails_where_another_answers(stack: Stack) -> None:
    stranger = stack.server.url.rpartition(":")[2]
    code, _, err = await stack.priorityd("health", PRIORITYD_HTTP_PORT=stranger)
    assert code == 1
    assert "no priorityd" in err
    async with stack.daemon() as daemon:
        other = {"PRIORITYD_HTTP_PORT": daemon.port, "SUPABASE_URL": "https://another.supabase.co"}
        code, _, err = await stack.priorityd("health", **other)
        assert code == 1
        assert f"a priorityd of another project, priorityd/{__version__} (" in err


async def test_health_fails_where_nobody_listens(stack: Stack) -> None:
    code, _, err = await stack.priorityd("health", PRIORITYD_HTTP_PORT=free_port())
    assert code == 1
    assert "no answer at" in err
