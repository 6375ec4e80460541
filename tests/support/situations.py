"""Situations that the status page has to show, each a real daemon on a database of its own.

A situation is yielded when the daemon says what is so; `then` is what happens behind the open page.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import anyio
import psutil
import psycopg

from priorityd.daemon.clock import utc_now
from priorityd.daemon.sandbox.postgres import EmbeddedPostgres, embedded_postgres
from priorityd.daemon.sandbox.seed import prepare_database
from priorityd.daemon.status.http import Probes, listen, serve
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.status.report import Report
from tests.support.application import Application
from tests.support.daemon_process import Daemon, eventually, start_daemon
from tests.support.daemon_words import knows, page_of, says
from tests.support.event_api import EVENT_KEY, EventApi, serve_event_api
from tests.support.proxy import serve_proxy
from tests.support.reports import NOW, a_busy_hour, a_report
from tests.support.servers import start_servers
from tests.support.stack import Stack

RARE_SWEEPS: Final[dict[str, Any]] = {"PRIORITYD_SWEEP_INTERVAL_SECONDS": 90}
"""While rows are tried again they are not among those that are refused."""

REPOSITORIES: Final = tuple(
    f"acme/{name}"
    for name in (
        "web", "api", "worker", "billing", "mobile", "search", "docs", "infra",
        "design-system", "status", "auth", "metrics", "importer", "notifications",
    )
)  # fmt: skip
LONG_NAMES: Final = (
    "a-company-with-the-longest-name-that-is-allowed/" + "a-repository-" * 7 + "whose-name-is-so-long",
    "nobreakanywhereinthisnameofanorganisationatall/norisoneinthenameofthisrepositorywhichgoesonandonandon",
    "Größenwahn/Überprüfungswerkzeuge",
    "открытые-данные/реестр-организаций",
    "مؤسسة/مستودع-الأدوات",
    "acme/<script>alert(1)</script>",
    "a/b",
)


@dataclass
class Situation:
    """The page's URL, and what happens once it is open."""

    url: str
    then: Callable[[], Awaitable[None]] | None = None


NewStack = Callable[[], AbstractAsyncContextManager[Stack]]
Make = Callable[[NewStack], AbstractAsyncContextManager[Situation]]


def named(app: Application, *names: str) -> list[UUID]:
    """Tracked repositories with these names."""
    ids = [uuid4() for _ in names]
    owners, repositories = zip(*(name.split("/", 1) for name in names), strict=True)
    app.connection.execute(
        "insert into repositories (id, owner, name) select * from unnest(%s::uuid[], %s::text[], %s::text[])",
        (ids, list(owners), list(repositories)),
    )
    app.connection.execute(
        "insert into tracked_repositories (repository_id) select unnest(%s::uuid[])", (ids,)
    )
    return ids


@asynccontextmanager
async def starting(new_stack: NewStack) -> AsyncIterator[Situation]:
    """Supabase has not answered yet. For 25 seconds this is not a problem."""
    async with new_stack() as stack, serve_proxy(urlsplit(stack.server.url).port or 0) as proxy:
        await proxy.set("frozen", on=True)
        async with stack.daemon(ready=False, SUPABASE_URL=f"http://127.0.0.1:{proxy.port}") as daemon:
            await says(daemon, "Starting")
            yield Situation(page_of(daemon))


@asynccontextmanager
async def good(new_stack: NewStack) -> AsyncIterator[Situation]:
    """Changes come and are applied, and jobs are counted."""
    async with new_stack() as stack:
        app = stack.app
        ids = named(app, *REPOSITORIES)
        async with stack.daemon() as daemon:
            workspace, other = app.workspace(), app.workspace()
            app.add(workspace, *ids[:10])
            await eventually(lambda: app.wrong_rows() == 0)
            app.add(other, *ids[4:7])
            await eventually(lambda: app.wrong_rows() == 0)
            app.remove(workspace, *ids[:2])
            await eventually(lambda: app.wrong_rows() == 0)
            app.connection.execute(
                """insert into background_jobs (status, payload, created_at)
                   select 'queued', jsonb_build_object('priority', p), now() - interval '40 s'
                   from unnest(array[100, 50, 50, 25]) p"""
            )
            await says(daemon, "All 8 workspace repositories are high.")
            await eventually(lambda: _has_counted_jobs(daemon, 2))
            yield Situation(page_of(daemon))


async def _has_counted_jobs(daemon: Daemon, medium: int) -> bool:
    counted: bool = (await daemon.status())["jobs"]["queued"]["medium"]["count"] == medium
    return counted


@asynccontextmanager
async def nothing_in_a_workspace(new_stack: NewStack) -> AsyncIterator[Situation]:
    """Repositories are tracked, but no workspace holds one."""
    async with new_stack() as stack:
        named(stack.app, *REPOSITORIES)
        async with stack.daemon() as daemon:
            await says(daemon, "No repository is in a workspace.")
            yield Situation(page_of(daemon))


@asynccontextmanager
async def database_frozen(_: NewStack) -> AsyncIterator[Situation]:
    """All of PostgreSQL's processes are stopped."""
    with embedded_postgres() as postgres:
        prepare_database(postgres.url(), with_demo_data=False, step=lambda _: None)
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            app = Application(connection)
            app.add(app.workspace(), *named(app, *REPOSITORIES[:10]))
        async with start_servers(postgres.url()) as server:
            settings: dict[str, Any] = {
                "SUPABASE_URL": server.url,
                "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
            }
            async with start_daemon(**settings) as daemon:
                await says(daemon, "All 10 workspace repositories are high.")
                with _stopped(postgres):
                    await says(daemon, "The database has not ")
                    yield Situation(page_of(daemon))


@contextmanager
def _stopped(postgres: EmbeddedPostgres) -> Iterator[None]:
    pid_file = postgres.data_dir / "postmaster.pid"
    postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
    processes = [postmaster, *postmaster.children(recursive=True)]
    _signal(processes, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(processes, signal.SIGCONT)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@asynccontextmanager
async def realtime_down(new_stack: NewStack) -> AsyncIterator[Situation]:
    """WebSockets are reset, including the open one; everything else works."""
    async with new_stack() as stack, serve_proxy(urlsplit(stack.server.url).port or 0) as proxy:
        app = stack.app
        ids = named(app, *REPOSITORIES)
        workspace = app.workspace()
        app.add(workspace, *ids[:9])
        async with stack.daemon(SUPABASE_URL=f"http://127.0.0.1:{proxy.port}") as daemon:
            await says(daemon, "All 9 workspace repositories are high.")
            await proxy.set("stream_refused", on=True)
            app.add(workspace, ids[9])
            await knows(daemon, "changes_not_heard")
            yield Situation(page_of(daemon))


@asynccontextmanager
async def parked_rows(new_stack: NewStack) -> AsyncIterator[Situation]:
    """A check of the application refuses some rows."""
    async with new_stack() as stack:
        app = stack.app
        ids = named(app, *REPOSITORIES)
        app.connection.execute(
            """create function plan_is_paid() returns trigger language plpgsql as $$
               begin raise exception 'the plan "free" has no priorities' using errcode = '23514'; end $$"""
        )
        _refuse(app, "plan_is_paid", ids[2:5])
        for said in ({"organization_name": "acme", "repository_name": "unborn"}, {}):
            app.track(None, priority="high", is_workspace_repo=True, **said)
        app.connection.execute(
            """create trigger refusing_unborn before update on tracked_repositories for each row
               when (new.repository_id is null) execute function plan_is_paid()"""
        )
        async with stack.daemon(**RARE_SWEEPS) as daemon:
            app.add(app.workspace(), *ids[:10])
            await knows(daemon, "not_high", "rows_refused")
            yield Situation(page_of(daemon))


@asynccontextmanager
async def all_writes_refused(new_stack: NewStack) -> AsyncIterator[Situation]:
    """A trigger of the application writes to a table that does not exist."""
    async with new_stack() as stack:
        app = stack.app
        ids = named(app, *REPOSITORIES, *(f"acme/service-{number}" for number in range(1, 20)))
        app.connection.execute(
            """create function log_priority() returns trigger language plpgsql as $$
               begin insert into priority_log values (new.repository_id); return new; end $$"""
        )
        _refuse(app, "log_priority", ids)
        async with stack.daemon() as daemon:
            app.add(app.workspace(), *ids)
            await knows(daemon, "writes_refused", "not_high")
            yield Situation(page_of(daemon))


def _refuse(app: Application, function: str, ids: list[UUID]) -> None:
    listed = ", ".join(f"'{each}'" for each in ids)
    app.connection.execute(
        f"""create trigger refusing before update on tracked_repositories for each row
            when (new.repository_id in ({listed})) execute function {function}()"""
    )


@asynccontextmanager
async def standing_by(new_stack: NewStack) -> AsyncIterator[Situation]:
    """Another daemon leads."""
    async with new_stack() as stack:
        app = stack.app
        ids = named(app, *REPOSITORIES)
        async with stack.daemon() as leader, stack.daemon() as other:
            app.add(app.workspace(), *ids[:6])
            for daemon in (leader, other):
                await says(daemon, "All 6 workspace repositories are high.")
            assert not (await other.status())["leader"]
            yield Situation(page_of(other))


@asynccontextmanager
async def lost_jobs(new_stack: NewStack) -> AsyncIterator[Situation]:
    """Ordered jobs were released, but never report."""
    async with new_stack() as stack, serve_event_api(EventApi()) as inngest:
        app = stack.app
        ids = named(app, *REPOSITORIES)
        app.add(app.workspace(), *ids[:4])
        settings: dict[str, Any] = {
            "INNGEST_EVENT_API_BASE_URL": inngest,
            "INNGEST_EVENT_KEY": EVENT_KEY,
            "PRIORITYD_JOBS_IN_FLIGHT": 3,
        }
        async with stack.daemon(**settings) as daemon:
            await says(daemon, "All 4 workspace repositories are high.")
            code, _, err = await stack.priorityd("queue", "reviews", *map(str, ids), "--mode", "ordered")
            assert code == 0, err
            sent = "select count(*) from priorityd.ordered_jobs where sent_at is not null"
            await eventually(lambda: app.connection.execute(sent).fetchone() == (3,))
            app.connection.execute(
                "update priorityd.ordered_jobs set lease_until = clock_timestamp() where sent_at is not null"
            )
            await knows(daemon, "jobs_lost")
            yield Situation(page_of(daemon))


@asynccontextmanager
async def overtaken_jobs(new_stack: NewStack) -> AsyncIterator[Situation]:
    """Jobs were begun before older ones of a higher priority."""
    async with new_stack() as stack:
        app = stack.app
        ids = named(app, *REPOSITORIES)
        app.add(app.workspace(), *ids[:4])
        async with stack.daemon() as daemon:
            await says(daemon, "All 4 workspace repositories are high.")
            app.connection.execute(
                """insert into background_jobs (repository_id, type, status, payload, created_at, started_at)
                   select i, t, s, jsonb_build_object('priority', p), now() - interval '1 min',
                       case s when 'processing' then now() end
                   from unnest(%s::uuid[], %s::text[], %s::text[], %s::int[]) u (i, t, s, p)""",
                (
                    [ids[0], ids[5], ids[6], ids[1], None],
                    ["reviews"] * 3 + ["comments"] * 2,
                    ["queued", "processing", "processing", "queued", "processing"],
                    [100, 50, 25, 100, 50],
                ),
            )
            await knows(daemon, "jobs_overtake")
            yield Situation(page_of(daemon))


@asynccontextmanager
async def killed(new_stack: NewStack) -> AsyncIterator[Situation]:
    """The daemon dies behind the open page."""
    async with new_stack() as stack:
        app = stack.app
        app.add(app.workspace(), *named(app, *REPOSITORIES)[:7])
        async with stack.daemon() as daemon:
            await says(daemon, "All 7 workspace repositories are high.")

            async def kill() -> None:
                daemon.process.kill()
                await daemon.process.wait()

            yield Situation(page_of(daemon), kill)


@asynccontextmanager
async def long_names(new_stack: NewStack) -> AsyncIterator[Situation]:
    """Names of the greatest length, and in many alphabets; the row of one can't be written."""
    async with new_stack() as stack:
        app = stack.app
        ids = named(app, *LONG_NAMES)
        app.connection.execute(
            """create function refuse() returns trigger language plpgsql as $$
               begin raise exception 'строка нарушает ограничение-проверку «%»', repeat('x', 120); end $$"""
        )
        _refuse(app, "refuse", ids[:2])
        async with stack.daemon(**RARE_SWEEPS) as daemon:
            app.add(app.workspace(), *ids)
            await knows(daemon, "not_high", "rows_refused")
            yield Situation(page_of(daemon))


def moved(value: Any, by: timedelta) -> Any:
    """The same report, this much later."""
    if isinstance(value, datetime):
        return value + by
    if isinstance(value, dict):
        return {key: moved(each, by) for key, each in value.items()}
    return [moved(each, by) for each in value] if isinstance(value, list) else value


@asynccontextmanager
async def an_hour_with_outages(_: NewStack) -> AsyncIterator[Situation]:
    """What takes an hour to happen, shown from a hand-written report."""
    report = Report.model_validate(moved(a_report(**a_busy_hour()).model_dump(), utc_now() - NOW))
    probes = Probes(not_alive=list, not_ready=list, status=lambda: report)
    with listen("127.0.0.1", 0) as endpoint:
        port = endpoint.getsockname()[1]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, endpoint, Metrics().registry, probes)
            yield Situation(f"http://127.0.0.1:{port}/")
            tasks.cancel_scope.cancel()


SITUATIONS: Final[dict[str, Make]] = {
    "starting": starting,
    "database-frozen": database_frozen,
    "realtime-down": realtime_down,
    "good": good,
    "nothing-in-a-workspace": nothing_in_a_workspace,
    "parked-rows": parked_rows,
    "all-writes-refused": all_writes_refused,
    "standing-by": standing_by,
    "lost-jobs": lost_jobs,
    "overtaken-jobs": overtaken_jobs,
    "killed": killed,
    "long-names": long_names,
    "an-hour-with-outages": an_hour_with_outages,
}
"""The first passes soon; of the others those that take longest to happen come first."""
