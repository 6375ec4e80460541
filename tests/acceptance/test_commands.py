"""The operators' commands that change or show something: what they print, and how they fail."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.support.answers import http, saying
from tests.support.daemon_process import (
    environment,
    eventually,
    free_port,
    priorityd,
    start_daemon,
)
from tests.support.daemon_words import knows
from tests.support.faults import misbehave
from tests.support.programs import open_module
from tests.support.situations import RARE_SWEEPS, named
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
    assert "1 of 2 would change" in out
    assert app.row(repository) == ("medium", False, 0)
    code, out, _ = await stack.priorityd("sync", "--dry-run", "--json")
    assert (code, json.loads(out)["priority_changes"]) == (10, 1)
    assert (await stack.priorityd("sync"))[0] == 0
    code, out, _ = await stack.priorityd("sync", "--dry-run")
    assert code == 0
    assert out.startswith("0 of 2 would change")


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
    assert "         1  high as before, with a different flag or workspace count\n" in out


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


@pytest.mark.parametrize(
    ("sqlstate", "exit_code"),
    [("57P01", 69), ("P0001", 1), ("28P01", 77)],
    ids=["may pass", "for good", "key"],
)
@pytest.mark.parametrize("some", [True, False], ids=["some", "all"])
async def test_a_sync_that_an_error_ends_says_what_it_did_before(
    stack: Stack, sqlstate: str, exit_code: int, *, some: bool
) -> None:
    app, repositories = stack.app, stack.app.repositories(3)
    app.add(app.workspace(), *repositories)
    function = "sync_workspace_priorities" if some else "resync_workspace_priorities_page"
    first = "p_repository_ids uuid[]" if some else "p_after uuid, p_limit integer"
    values = "p_repository_ids" if some else "p_after, 1"
    app.connection.execute(
        f"""create sequence calls;
        alter function {function} rename to as_it_was;
        create function {function}({first}, p_trigger text, p_dry_run boolean default false)
        returns jsonb language plpgsql as $$ begin
            if nextval('calls') > 1 then
                raise exception using errcode = '{sqlstate}', message = 'fails from now on';
            end if;
            return as_it_was({values}, p_trigger, p_dry_run);
        end $$;
        grant usage on sequence calls to service_role;
        notify pgrst, 'reload schema'""".encode()
    )
    named_ones = [f"--repository={each}" for each in repositories] if some else []
    code, out, err = await stack.priorityd("sync", "--json", *named_ones, PRIORITYD_BATCH_SIZE=1)
    assert code == exit_code, err
    answer = json.loads(out)
    assert (answer["examined"], answer["priority_changes"], len(answer["changes"])) == (1, 1, 1)
    assert "fails from now on" in answer["errors"][0]
    app.connection.execute("alter sequence calls restart")
    code, out, err = await stack.priorityd("sync", *named_ones, PRIORITYD_BATCH_SIZE=1)
    assert code == exit_code
    assert "0 of 1 changed" in out
    assert "fails from now on" in err


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
    (web,), (other,) = named(app, "acme/web"), app.repositories(1)
    bare = app.track(None, priority="high", is_workspace_repo=True)
    said = {"organization_name": "acme", "repository_name": "docs"}
    row = app.track(None, priority="high", is_workspace_repo=True, **said)
    app.add(app.workspace(), web, other)
    app.connection.execute(
        """create function no() returns trigger language plpgsql as $$
        begin raise exception using errcode = '42501', message = 'frozen'; end $$;
        create trigger no before update on tracked_repositories for each row execute function no()"""
    )
    code, out, err = await stack.priorityd("sync")
    assert code == 1
    assert "0 of 4 changed" in out
    assert f"priorityd: acme/web ({web}): frozen (42501)\n" in err
    assert f"priorityd: tracked row {bare}, without a repository: frozen (42501)\n" in err
    assert f"priorityd: acme/docs (tracked row {row}, without a repository): frozen (42501)\n" in err
    code, out, _ = await stack.priorityd("sync", "--json")
    assert (code, len(json.loads(out)["refused"])) == (1, 4)


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
        "Outbox: disabled\n",
        "Jobs: queued: high 0, medium 0, low 0",
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
    assert (code, out) == (1, "1 repository rolled back\n")
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


async def test_unreachable_is_69_for_every_command() -> None:
    settings: dict[str, Any] = {
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


async def test_status_names_what_can_not_be_written_and_which_jobs_overtook_others(stack: Stack) -> None:
    app = stack.app
    web, api = named(app, "acme/web", "acme/api")
    said = {"organization_name": "acme", "repository_name": "docs"}
    row = app.track(None, priority="high", is_workspace_repo=True, **said)
    bare = app.track(None, priority="high", is_workspace_repo=True)
    app.connection.execute(
        f"""create function no() returns trigger language plpgsql as $$ begin raise 'frozen'; end $$;
        create trigger no before update on tracked_repositories for each row
            when (old.repository_id is distinct from '{api}') execute function no()""".encode()
    )
    app.add(app.workspace(), web, api)
    async with stack.daemon(**RARE_SWEEPS) as daemon:
        await knows(daemon, "rows_refused")
        app.connection.execute(
            """insert into background_jobs (repository_id, status, payload, created_at, started_at)
               values (%s, 'queued', '{"priority": 100}', now() - interval '1 min', null),
                   (%s, 'processing', '{"priority": 25}', now(), now()),
                   (null, 'processing', '{"priority": 25}', now(), now())""",
            (api, web),
        )
        await knows(daemon, "jobs_overtake", "rows_refused")
        _, words, _ = await stack.priorityd("status", PRIORITYD_HTTP_PORT=daemon.port)
    assert ", 1 parked, 2 rows without a repository refused\n" in words
    for refused in (
        f"acme/web ({web})",
        f"acme/docs (tracked row {row}, without a repository)",
        f"tracked row {bare}, without a repository",
    ):
        assert f"\n  {refused}: frozen (P0001)\n" in words
    job = "job [0-9a-f-]{36}"
    for early in (rf"{job} of acme/web \({web}\)", job):
        assert re.search(
            rf"^  {early}, low, started 20[-0-9: ]+ UTC before {job} of acme/api \({api}\), high$",
            words,
            re.MULTILINE,
        ), words


async def test_status_shows_no_daemon_where_another_program_answers(stack: Stack) -> None:
    async with saying(http(200, {"ok": True})) as port:
        code, out, err = await stack.priorityd("status", PRIORITYD_HTTP_PORT=port)
    assert (code, err) == (0, "")
    assert f"Daemon: a program that is not priorityd answers at 127.0.0.1:{port}" in out


async def test_a_bug_is_one_line_with_its_exit_code_and_a_traceback_at_level_debug(stack: Stack) -> None:
    project = urlsplit(stack.server.url).netloc
    nonsense = http(200, {"ready": True, "version": "1", "started_at": 5}, f"Server: priorityd/1 ({project})")
    async with saying(nonsense) as port:
        code, _, err = await stack.priorityd("status", PRIORITYD_HTTP_PORT=port)
        assert code == 1
        assert re.fullmatch(r"priorityd: TypeError: .+ This is a bug in priorityd: .+\n", err), err
        code, _, err = await stack.priorityd("status", PRIORITYD_HTTP_PORT=port, PRIORITYD_LOG_LEVEL="debug")
    assert code == 1
    logged, said = err.splitlines()
    assert "Traceback" in json.loads(logged)["exception"]
    assert said.startswith("priorityd: TypeError: ")


async def test_status_shows_no_daemon_of_another_project(stack: Stack) -> None:
    other = {"SUPABASE_URL": f"http://127.0.0.1:{free_port()}", "SUPABASE_SERVICE_ROLE_KEY": "a-key"}
    async with start_daemon(ready=False, **other) as daemon:
        await eventually(lambda: daemon.answers("/livez", 200))
        _, words, _ = await stack.priorityd("status", PRIORITYD_HTTP_PORT=daemon.port)
        _, out, _ = await stack.priorityd("status", "--json", PRIORITYD_HTTP_PORT=daemon.port)
    assert "Daemon: the priorityd of another project" in words
    assert json.loads(out)["daemon"] is None


async def test_check_tells_a_port_that_another_project_s_daemon_has(stack: Stack) -> None:
    other = {"SUPABASE_URL": f"http://127.0.0.1:{free_port()}", "SUPABASE_SERVICE_ROLE_KEY": "a-key"}
    async with start_daemon(ready=False, **other) as daemon:
        await eventually(lambda: daemon.answers("/livez", 200))
        _, out, _ = await stack.priorityd("check", "--json", PRIORITYD_HTTP_PORT=daemon.port)
    (port,) = [each for each in json.loads(out)["findings"] if each["step"] == "metrics port"]
    assert port["outcome"] == "failed"
    assert port["command"] == "export PRIORITYD_HTTP_PORT=0"
