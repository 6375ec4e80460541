"""The flows: each runs in a world, and raises an AssertionError that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from tests.support.application import Row
from tests.support.daemon_process import Daemon, eventually
from tests.support.patience import PATIENCE_SECONDS
from tests.support.stack import NO_TIMER
from tests.worlds.place import Json, Place

_JOB = "insert into background_jobs (type, repository_id) values ('capture/pr.reviews', %s) returning id"
_START = "update background_jobs set status = 'processing', started_at = clock_timestamp() where id = %s"
_END = "update background_jobs set status = 'completed', completed_at = clock_timestamp() where id = %s"


# So many that one or the other is missing where only a part of the changes comes.
_LIVE: Final = 8


class RefusedError(Exception):
    """The flow is refused in this world, with this reason."""


@dataclass(frozen=True)
class Flow:
    """`excused_by`: the steps of `priorityd check` whose findings excuse the flow from working."""

    do: Callable[[Place], Awaitable[None]]
    excused_by: tuple[str, ...] = ()


async def _until(what: str, condition: Callable[[], object]) -> None:
    """Wait for the condition; if it does not come, say which."""
    try:
        await eventually(condition)
    except AssertionError as error:
        raise AssertionError(f"{what}: not within {PATIENCE_SECONDS} s") from error


async def _become(place: Place, row: Row, *repositories: UUID) -> None:
    """Wait until these rows have these values."""
    await _until(
        f"not all of {len(repositories)} rows became {row}",
        lambda: all(place.app.row(repository) == row for repository in repositories),
    )


async def live_add_and_remove(place: Place) -> None:
    """By the stream alone, without timers. One repository is in a workspace before the daemon starts."""
    app, workspace = place.app, place.app.workspace()
    before, live = app.repository(), app.repositories(_LIVE)
    app.add(workspace, before)
    async with place.stack.daemon(ready=False, **NO_TIMER) as daemon:
        await eventually(lambda: daemon.answers("/readyz", 200))
        await eventually(daemon.live)
        await _become(place, ("high", True, 1), before)
        for repository in live:
            app.add(workspace, repository)
        await _become(place, ("high", True, 1), *live)
        app.remove(workspace, before, *live)
        await _become(place, ("medium", False, 0), before, *live)


async def cascade(place: Place) -> None:
    """Many memberships come in one statement and go with their workspace; refused rows delay no others."""
    app = place.app
    doomed, other, repositories = app.workspace(), app.workspace(), app.repositories(place.size)
    place.refusing()
    async with place.stack.daemon(ready=False, PRIORITYD_SWEEP_INTERVAL_SECONDS=1) as daemon:
        await eventually(lambda: daemon.answers("/readyz", 200))
        app.add(doomed, *repositories)
        app.add(other, *repositories[: place.size // 5])
        await _until("rows are wrong after many joined", lambda: app.wrong_rows() == 0)
        assert app.row(repositories[0]) == ("high", True, 2)
        app.delete_workspace(doomed)
        await _until("rows are wrong after their workspace went", lambda: app.wrong_rows() == 0)
        assert app.row(repositories[0]) == ("high", True, 1)
        assert app.row(repositories[-1]) == ("medium", False, 0)
        await _refused_are_named(place, daemon)


async def _refused_are_named(place: Place, daemon: Daemon) -> None:
    """Refused rows are shown as parked, with the application's message."""
    refused = place.app.connection.execute(place.app.habits.list_refused.encode()).fetchall()

    async def all_named() -> bool:
        # While it is too busy to answer there is no queue in the status.
        rows = (await daemon.status()).get("queue", {}).get("parked_repositories", [])
        parked = {each["repository_id"] for each in rows}
        return {str(row[1]) for row in refused} == parked

    await _until("not exactly what the application refuses is parked", all_named)


async def sweep(place: Place) -> None:
    """Memberships that the stream did not deliver."""
    app, workspace = place.app, place.app.workspace()
    repositories, left = app.repositories(place.size), place.member()
    await place.rpc("sweep_workspace_priorities")
    app.connection.execute(
        "update tracked_repositories set workspace_count = 7 where repository_id = %s", (left,)
    )
    app.add(workspace, *repositories)
    place.refusing()
    answer = await place.rpc("sweep_workspace_priorities")
    place.all_right(answer["refused"])
    assert app.row(repositories[0]) == ("high", True, 1)
    app.remove(workspace, *repositories)
    again = await place.rpc("sweep_workspace_priorities")
    place.all_right(again["refused"])
    assert app.row(repositories[0]) == ("medium", False, 0)


async def resync(place: Place) -> None:
    """All pages are corrected, and rows without a repository, too."""
    app, workspace = place.app, place.app.workspace()
    repositories, empty = app.repositories(place.size), app.track(None, priority="low")
    app.add(workspace, *repositories)
    place.refusing()
    refused: list[Json] = []
    page: Json = {"next_after": None}
    while True:
        page = await place.rpc(
            "resync_workspace_priorities_page", p_after=page["next_after"], p_limit=max(place.size // 3, 1)
        )
        refused += page["refused"]
        if page["next_after"] is None:
            break
    place.all_right(refused)
    assert place.value("select priority::text from tracked_repositories where id = %s", empty) == "medium"


async def cli_sync(place: Place) -> None:
    """A dry run shows what the command then does."""
    app, workspace = place.app, place.app.workspace()
    repositories = app.repositories(place.size)
    app.add(workspace, *repositories)
    place.refusing()
    await place.priorityd("sync", "--dry-run", codes=(10,))
    assert app.row(repositories[0])[0] != "high"
    answer = json.loads(await place.priorityd("sync", "--json", codes=(0, 1)))
    place.all_right(answer["refused"])


async def pin(place: Place) -> None:
    """A pin takes effect outside workspaces, is kept inside one, and can be removed."""
    app, workspace, repository = place.app, place.app.workspace(), place.app.repository()
    await place.priorityd("pin", str(repository), "low")
    assert app.row(repository) == ("low", False, 0)
    app.add(workspace, repository)
    await place.sync(repository)
    assert app.row(repository) == ("high", True, 1)
    app.remove(workspace, repository)
    await place.sync(repository)
    assert app.row(repository) == ("low", False, 0)
    await place.priorityd("unpin", str(repository))
    assert app.row(repository) == ("medium", False, 0)


async def rollback(place: Place) -> None:
    """Everything is taken back, and what a workspace holds is high again at the next sync."""
    app, workspace = place.app, place.app.workspace()
    repositories = app.repositories(place.size)
    app.add(workspace, *repositories)
    await place.sync(*repositories)
    await place.priorityd("rollback", "--yes")
    assert {app.row(each) for each in repositories} == {("medium", False, 0)}
    await place.sync(*repositories)
    assert app.wrong_rows() == 0


async def explain(place: Place) -> None:
    """A right row is reported as right, and the workspace is named."""
    repository = place.member()
    await place.sync(repository)
    answer = json.loads(await place.priorityd("explain", str(repository), "--json"))
    assert answer["correct"] is True, answer
    assert answer["tracked"]["priority"] == "high", answer
    assert [workspace["counts"] for workspace in answer["workspaces"]] == [True], answer


async def queue_direct(place: Place) -> None:
    """The events have the priorities, and the workspace's come first."""
    held, other = place.member(), place.app.repository()
    await place.sync(held, other)
    before = len(place.inngest.accepted)
    arguments = ("recent-prs", str(other), str(held), "--mode", "direct")
    code, _, err = await place.stack.priorityd("queue", *arguments, **place.inngest_settings)
    assert code == 0, err
    sent = [
        (event["data"]["repositoryId"], event["data"]["priority"])
        for event in place.inngest.accepted[before:]
    ]
    assert sent == [(str(held), 100), (str(other), 50)], sent


async def _queue(place: Place, *repositories: UUID, data: str = "{}") -> list[UUID]:
    await place.priorityd("queue", "reviews", *map(str, repositories), "--mode", "ordered", "--data", data)
    query = "select id from background_jobs where repository_id = any (%s) and status <> 'completed'"
    jobs: list[UUID] = [row[0] for row in place.app.connection.execute(query, (list(repositories),))]
    assert len(jobs) == len(repositories), f"{len(jobs)} jobs are in the table"
    return jobs


async def queue_ordered(place: Place) -> None:
    """The jobs wait in the application's table, and are listed in order."""
    held, other = place.member(), place.app.repository()
    await place.sync(held, other)
    await _queue(place, other, held)
    listed = json.loads(await place.priorityd("jobs", "list", "--json"))
    assert [job["repository_id"] for job in listed["jobs"]] == [str(held), str(other)], listed


async def cancel(place: Place) -> None:
    """Waiting jobs are cancelled, and the application's table says so."""
    repository = place.app.repository()
    (job,) = await _queue(place, repository)
    await place.priorityd("jobs", "cancel", str(job))
    status = place.value("select status::text from background_jobs where id = %s", job)
    assert status == "cancelled", status


async def release(place: Place) -> None:
    """One at a time, the workspace's first; one that ends makes room for the next; refused ones fail."""
    app, held = place.app, place.member()
    others = [app.repository(), app.repository()]
    await place.sync(held, *others)
    before = len(place.inngest.accepted)
    await _queue(place, *others, held)
    settings = place.inngest_settings | {"PRIORITYD_JOBS_IN_FLIGHT": 1}

    def events() -> list[Json]:
        return place.inngest.accepted[before:]

    def sent(number: int) -> bool:
        return len(events()) > number

    async with place.stack.daemon(ready=False, **settings):
        for number in range(3):
            await _until(f"job {number + 1} was not sent", partial(sent, number))
            job = events()[number]["data"]["jobId"]
            app.connection.execute(_START.encode(), (job,))
            app.connection.execute(_END.encode(), (job,))
        assert events()[0]["data"]["repositoryId"] == str(held)
        place.inngest.faults.refuse = "never"
        (refused,) = await _queue(place, held, data='{"note": "never"}')
        query = "select status::text from background_jobs where id = %s"
        await _until("what Inngest refused has not failed", lambda: place.value(query, refused) == "failed")


async def telemetry(place: Place) -> None:
    """A job that ends is counted once, with its repository's priority."""
    repository = place.member()
    await place.sync(repository)
    poll = {"p_daemon_id": str(repository), "p_settle_seconds": 0}
    first = await place.rpc("poll_background_jobs", **poll)
    if not first["available"]:
        raise RefusedError(first["reason"])
    job = place.value(_JOB, repository)
    for statement in (_START, _END):
        place.app.connection.execute(statement.encode(), (job,))
    page: int = first["page"]
    counted: list[tuple[str, str, int]] = []

    async def found() -> bool:
        nonlocal page
        answer = await place.rpc("poll_background_jobs", **poll, p_counted_page=page)
        page = answer["page"]
        counted.extend((group["priority"], group["status"], group["jobs"]) for group in answer["finished"])
        return ("high", "completed", 1) in counted

    await _until("the job was not counted", found)


_STREAM: Final = ("publication", "change stream", "removals")

FLOWS: Final[dict[str, Flow]] = {
    "live add and remove": Flow(live_add_and_remove, _STREAM),
    "cascade": Flow(cascade),
    "sweep": Flow(sweep),
    "resync": Flow(resync),
    "sync": Flow(cli_sync),
    "pin": Flow(pin),
    "rollback": Flow(rollback),
    "explain": Flow(explain),
    "queue direct": Flow(queue_direct),
    "queue ordered": Flow(queue_ordered),
    "release": Flow(release),
    "cancel": Flow(cancel),
    "telemetry": Flow(telemetry),
}
"""What is done where the migrations are applied, in order."""


def words(error: BaseException) -> str:
    """The first line of what an error says."""
    lines = str(error).strip().splitlines() or ["nothing"]
    first = lines[0][:300]
    if isinstance(error, ExceptionGroup):
        return words(error.exceptions[0])
    return first if isinstance(error, AssertionError | RefusedError) else f"{type(error).__name__}: {first}"
