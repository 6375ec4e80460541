"""The function `sync-workspace-priorities` in the real daemon process, called by a stand-in for Inngest."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import anyio
import pytest
import websockets
from websockets.typing import Subprotocol

from priorityd.daemon.inngest.sync_function import REASONS_SHOWN
from tests.support.connect_gateway import SIGNING_KEY, ConnectGateway, pb, serve_gateway
from tests.support.daemon_process import Daemon, eventually, free_port
from tests.support.patience import PATIENCE_SECONDS
from tests.support.stack import NO_TIMER, Stack, stack

__all__ = ["stack"]


@pytest.fixture
async def gateway() -> AsyncIterator[ConnectGateway]:
    gateway = ConnectGateway()
    async with serve_gateway(gateway):
        yield gateway


def settings(gateway: ConnectGateway) -> dict[str, Any]:
    return NO_TIMER | {"INNGEST_API_BASE_URL": gateway.url, "INNGEST_SIGNING_KEY": SIGNING_KEY}


async def state(daemon: Daemon) -> str:
    return str((await daemon.status())["sync_function"]["state"])


async def active(daemon: Daemon) -> bool:
    return await state(daemon) == "active"


async def test_the_function_is_offered_as_documented(stack: Stack, gateway: ConnectGateway) -> None:
    async with stack.daemon(**settings(gateway)) as daemon:
        await eventually(gateway.ready)
        (worker,) = gateway.workers
        (function,) = worker.functions
        assert function["id"] == "priorityd-sync-workspace-priorities"
        assert function["name"] == "Sync Workspace Repository Priorities"
        assert function["concurrency"] == [{"limit": 1}]
        assert function["steps"]["step"]["retries"] == {"attempts": 2}, "retries, as the server counts"
        assert function["triggers"] == [{"event": "workspace/priorities.sync"}]
        await eventually(lambda: active(daemon))
        assert gateway.refused == []
        await eventually(lambda: worker.heartbeats)


async def test_an_event_that_names_a_repository_makes_that_one_right_now(
    stack: Stack, gateway: ConnectGateway
) -> None:
    async with stack.daemon(**settings(gateway)) as daemon:
        await eventually(gateway.ready)
        repository = stack.app.repository()
        stack.app.connection.execute(
            "update tracked_repositories set is_workspace_repo = true, workspace_count = 7, priority = 'low'"
        )
        reply = await gateway.run({"repositoryId": str(repository), "trigger": "workspace_add"})
        assert (reply.status, reply.output) == (
            "DONE",
            {
                "examined": 1,
                "workspaceRepos": 0,
                "trackedOnlyRepos": 1,
                "untracked": 0,
                "priorityChanges": 1,
                "errors": [],
            },
        )
        assert stack.app.row(repository) == ("medium", False, 0)
        assert daemon.logged("priority_changed", trigger="manual")


async def test_an_event_that_names_none_has_every_row_looked_at(
    stack: Stack, gateway: ConnectGateway
) -> None:
    stack.app.repositories(30)
    async with stack.daemon(**settings(gateway)) as daemon:
        await eventually(gateway.ready)
        stack.app.connection.execute("update tracked_repositories set priority = 'low', workspace_count = 1")
        replies = await gateway.run_with_retries({})
        assert [reply.status for reply in replies] == ["DONE"]
        assert replies[0].output["examined"] == 30
        assert replies[0].output["priorityChanges"] == 30
        assert stack.app.wrong_rows() == 0
        assert await daemon.metric("resyncs_total", kind="full", trigger="manual", outcome="done") == 1


async def test_of_very_many_reasons_why_it_failed_the_answer_has_some(
    stack: Stack, gateway: ConnectGateway
) -> None:
    app = stack.app
    async with stack.daemon(**settings(gateway)):
        await eventually(gateway.ready)
        app.connection.execute(
            """create function no() returns trigger language plpgsql as $$
            begin raise exception using errcode = '53400', message = old.id || ' is frozen'; end $$;
            create trigger no before update on tracked_repositories for each row execute function no()"""
        )
        app.add(app.workspace(), *app.repositories(REASONS_SHOWN + 5))

        async def answered() -> bool:
            # A sweep may hold some of the rows just then.
            reply = await gateway.run({})
            assert reply.status == "ERROR"
            assert reply.output["message"].count(" is frozen") <= REASONS_SHOWN
            return str(reply.output["message"]).endswith("; and 5 more")

        await eventually(answered)


async def test_of_very_many_refused_rows_the_answer_has_some_reasons(
    stack: Stack, gateway: ConnectGateway
) -> None:
    app = stack.app
    app.add(app.workspace(), *app.repositories(REASONS_SHOWN + 5))
    app.connection.execute(
        """create function no() returns trigger language plpgsql as $$
        begin raise '% is frozen', case when old.size is null then 'one' else old.id::text end; end $$"""
    )
    app.connection.execute(
        """update tracked_repositories set size = 'small';
        update tracked_repositories set size = null where id in (select id from tracked_repositories limit 3);
        create trigger no before update on tracked_repositories for each row execute function no()"""
    )
    async with stack.daemon(**settings(gateway)):
        await eventually(gateway.ready)

        async def answered() -> bool:
            # A sweep may hold some of the rows just then.
            reply = await gateway.run({})
            assert reply.status == "DONE"
            *reasons, rest = reply.output["errors"]
            assert len(reasons) <= REASONS_SHOWN
            return (reasons[0], rest) == ("one is frozen (P0001) (3 rows)", "and 3 more rows were refused")

        await eventually(answered)


async def test_a_repository_id_that_is_none_is_refused_for_good(
    stack: Stack, gateway: ConnectGateway
) -> None:
    async with stack.daemon(**settings(gateway)):
        await eventually(gateway.ready)
        wrong: Any
        for wrong in ("no uuid", 17, [], ""):
            replies = await gateway.run_with_retries({"repositoryId": wrong})
            assert [(reply.status, reply.no_retry) for reply in replies] == [("ERROR", True)]
            assert "is not a UUID" in replies[0].output["message"]


async def test_what_fails_for_now_is_tried_three_times(stack: Stack, gateway: ConnectGateway) -> None:
    repository = stack.app.repository()
    async with stack.daemon(**settings(gateway)):
        await eventually(gateway.ready)
        holder = stack.database.connect(autocommit=False)
        holder.execute("select from tracked_repositories for update")
        stack.app.add(stack.app.workspace(), repository)
        replies = await gateway.run_with_retries({"repositoryId": str(repository)})
        assert [(reply.status, reply.no_retry) for reply in replies] == [("ERROR", False)] * 3
        assert "locked" in replies[-1].output["message"]
        holder.rollback()
        assert (await gateway.run({"repositoryId": str(repository)})).status == "DONE"


@pytest.mark.parametrize("how", ["closed", "asked to move"])
async def test_a_connection_that_is_given_up_is_made_again(
    stack: Stack, gateway: ConnectGateway, how: str
) -> None:
    async with stack.daemon(**settings(gateway)):
        (first,) = await eventually(gateway.ready)
        await (gateway.close_all() if how == "closed" else gateway.drain())
        await eventually(lambda: gateway.ready() not in ([], [first]))
        assert (await gateway.run({})).status == "DONE"


async def test_inngest_may_be_down_when_the_daemon_starts(stack: Stack) -> None:
    port = free_port()
    gateway = ConnectGateway()
    gateway.url = f"http://127.0.0.1:{port}"
    async with stack.daemon(**settings(gateway)) as daemon:
        repository = stack.app.repository()
        stack.app.add(stack.app.workspace(), repository)
        await eventually(lambda: stack.app.row(repository) == ("high", True, 1))
        assert await state(daemon) == "connecting"
        async with serve_gateway(gateway, port):
            await eventually(gateway.ready)
            assert (await gateway.run({})).status == "DONE"


async def test_a_refused_key_is_reported_and_disturbs_nothing(stack: Stack, gateway: ConnectGateway) -> None:
    wrong_key = "signkey-test-ffffffffffffffff"
    async with stack.daemon(**settings(gateway) | {"INNGEST_SIGNING_KEY": wrong_key}) as daemon:
        (line,) = await eventually(lambda: daemon.logged("function_host_failed"))
        assert "INNGEST_SIGNING_KEY" in line["error"]
        status = await daemon.status()
        assert status["sync_function"]["state"] == "backing_off"
        assert status["ready"]
        repository = stack.app.repository()
        stack.app.add(stack.app.workspace(), repository)
        await eventually(lambda: stack.app.row(repository) == ("high", True, 1))
        assert await daemon.stop() == 0
        assert wrong_key not in str(daemon.logs)


async def test_a_development_server_needs_no_key(stack: Stack) -> None:
    gateway = ConnectGateway(signing_key=None)
    async with serve_gateway(gateway) as url, stack.daemon(**NO_TIMER | {"INNGEST_DEV": url}):
        await eventually(gateway.ready)
        assert (await gateway.run({})).status == "DONE"


@pytest.mark.parametrize("moment", ["connected", "never greeted", "unreachable"])
async def test_told_to_stop_the_daemon_ends_soon(stack: Stack, moment: str) -> None:
    gateway = ConnectGateway()
    gateway.silent = moment == "never greeted"
    async with serve_gateway(gateway) as url:
        if moment == "unreachable":
            gateway.url = f"http://127.0.0.1:{free_port()}"
        async with stack.daemon(**settings(gateway)) as daemon:
            if moment == "connected":
                await eventually(gateway.ready)
            elif moment == "never greeted":
                await eventually(lambda: gateway.starts)
            assert await daemon.stop() == 0
            assert url
    assert gateway.workers == []


async def test_stopped_while_the_function_runs_it_says_so_to_inngest_and_ends(
    stack: Stack, gateway: ConnectGateway
) -> None:
    stack.app.repositories(3)
    async with stack.daemon(**settings(gateway)) as daemon:
        await eventually(gateway.ready)
        holder = stack.database.connect(autocommit=False)
        # In a thread: it waits for calls that the sandbox, in this event loop, has to end.
        await anyio.to_thread.run_sync(
            lambda: holder.execute("lock table tracked_repositories in access exclusive mode")
        )
        replies = []
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                replies.append(await gateway.run({}))

            tasks.start_soon(run)
            await eventually(lambda: daemon.logged("sync_event_received"))
            daemon.process.send_signal(signal.SIGTERM)
            await eventually(lambda: daemon.logged("stopping"))
            holder.rollback()
        with anyio.fail_after(PATIENCE_SECONDS):
            assert await daemon.process.wait() == 0
        assert [reply.status for reply in replies] in (["ERROR"], ["DONE"])


async def test_it_can_be_switched_off(stack: Stack, gateway: ConnectGateway) -> None:
    off: dict[str, Any] = {"PRIORITYD_HOST_SYNC_FUNCTION": "false"}
    async with stack.daemon(**settings(gateway) | off) as daemon:
        assert (await daemon.status())["sync_function"] == {"hosted": False}
        assert gateway.starts == 0


async def test_the_stand_in_refuses_what_the_gateway_refuses(gateway: ConnectGateway) -> None:
    hello = pb.WorkerConnectRequestData(connection_id=uuid4().hex, instance_id="i")
    first = pb.ConnectMessage(
        kind=pb.GatewayMessageType.WORKER_CONNECT, payload=hello.SerializeToString()
    ).SerializeToString()
    url = gateway.url.replace("http", "ws") + "/v0/connect"
    async with websockets.connect(url, subprotocols=[Subprotocol("v0.connect.inngest.com")]) as socket:
        greeting = pb.ConnectMessage.FromString(await socket.recv(decode=False))
        assert greeting.kind == pb.GatewayMessageType.GATEWAY_HELLO
        await socket.send(first)
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1008
    assert gateway.refused == ["Invalid connection ID in SDK connect message"]
