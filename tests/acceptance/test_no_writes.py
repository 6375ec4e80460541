"""A database that accepts no writes: priorities wait, no row is blamed, and every command says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.application import Application
from tests.support.daemon_process import eventually, free_port, priorityd, start_daemon
from tests.support.servers import start_servers
from tests.support.stack import Stack
from tests.support.standby import Pair, pair_of_servers


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pair_of_servers() as pair:
        yield pair


@pytest.mark.long
async def test_on_a_standby_priorities_wait_and_commands_say_so(pair: Pair) -> None:
    with pair.application().connection as connection:
        app = Application(connection)
        repository = app.repository()
        app.add(app.workspace(), repository)
    pair.demote()
    async with start_servers(pair.postgres.url()) as server:
        settings: dict[str, Any] = {
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
        }
        code, out, _ = await priorityd("sync", "--json", **settings)
        assert code == 69
        assert "accepts no writes" in json.loads(out)["errors"][0]
        code, out, _ = await priorityd("check", "--json", PRIORITYD_HTTP_PORT=free_port(), **settings)
        assert code == 69
        (failed,) = [each for each in json.loads(out)["findings"] if each["outcome"] == "failed"]
        assert "accepts no writes" in failed["text"]
        async with start_daemon(ready=False, **settings) as daemon:
            await eventually(lambda: daemon.logged("resync_failed"))
            assert await daemon.metric("call_errors_total", reason="unavailable") > 0
            assert await daemon.metric("parked_repositories") == 0
            pair.promote()
            with pair.application().connection as connection:
                promoted = Application(connection)
                await eventually(lambda: promoted.row(repository)[0] == "high")
            await eventually(lambda: daemon.answers("/readyz", 200))


async def test_a_full_disk_is_said_by_every_command(stack: Stack) -> None:
    app = stack.app
    repository = app.repository()
    app.add(app.workspace(), repository)
    app.connection.execute(
        """create function full() returns trigger language plpgsql as $$ begin
        raise exception using errcode = '53100', message = 'could not extend file: No space left'; end $$;
        create trigger full before insert or update on tracked_repositories
        for each row execute function full();
        create trigger full before insert or update on workspace_priority_heartbeats
        for each row execute function full()""".replace(" full", ' "full"').encode()
    )
    for arguments in (["sync", "--json"], ["sync", "--json", "--repository", str(repository)]):
        code, out, _ = await stack.priorityd(*arguments)
        assert code == 69
        answer = json.loads(out)
        assert answer["refused"] == []
        assert "No space left" in answer["errors"][0]
    code, out, _ = await stack.priorityd("check", "--json", PRIORITYD_HTTP_PORT=free_port())
    assert code == 69
    (failed,) = [each for each in json.loads(out)["findings"] if each["outcome"] == "failed"]
    assert "No space left" in failed["text"]
