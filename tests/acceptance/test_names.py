"""Names: commands take `owner/name` as well as an id, and show both; and they say what is so."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest

from tests.support.application import Application
from tests.support.stack import Stack


def call(app: Application, repository: UUID, name: str) -> UUID:
    app.connection.execute(
        "update repositories set owner = 'acme', name = %s where id = %s", (name, repository)
    )
    return repository


@pytest.fixture
def web(stack: Stack) -> UUID:
    return call(stack.app, stack.app.repository(), "web")


async def test_every_command_takes_a_name_and_shows_the_id_behind_it(stack: Stack, web: UUID) -> None:
    known = f"acme/web ({web})"
    stack.app.add(stack.app.workspace(), web)
    for arguments in (
        ["explain", "acme/web"],
        ["sync", "--dry-run", "--repository", "acme/web"],
        ["sync", "--repository", "acme/web"],
        ["pin", "acme/web", "low"],
        ["unpin", "acme/web"],
    ):
        _, out, err = await stack.priorityd(*arguments)
        assert (known in out, err) == (True, ""), arguments
    code, *_ = await stack.priorityd("queue", "reviews", "acme/web", "--mode", "ordered")
    assert code == 0
    for arguments in (["list"], ["list", "--repository", "acme/web"], ["cancel", "--repository", "acme/web"]):
        assert known in (await stack.priorityd("jobs", *arguments))[1], arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain"],
        ["sync", "--json", "--repository"],
        ["sync", "--repository"],
        ["pin", "low"],
        ["unpin"],
        ["jobs", "list", "--repository"],
        ["jobs", "cancel", "--repository"],
        ["queue", "reviews", "--mode", "ordered"],
    ],
    ids=" ".join,
)
async def test_a_name_that_is_unknown_or_not_unique_is_said_to_be(
    stack: Stack, web: UUID, arguments: list[str]
) -> None:
    app = stack.app
    app.connection.execute("alter table repositories drop constraint repositories_owner_name_key")
    other = call(app, app.repository(), "web")

    def about(word: str) -> list[str]:
        return [arguments[0], word, *arguments[1:]] if arguments[0] == "pin" else [*arguments, word]

    code, out, err = await stack.priorityd(*about("acme/webs"))
    assert (code, out, err) == (1, "", "priorityd: no repository has the name acme/webs\n")
    code, out, err = await stack.priorityd(*about("acme/web"))
    first, second = sorted(map(str, (web, other)))
    assert (code, out) == (1, "")
    assert err == (
        f"priorityd: acme/web is the name of 2 repositories; use the id of one: {first}, {second}\n"
    )


async def test_a_sync_of_what_nobody_knows_or_tracks_is_told(stack: Stack, web: UUID) -> None:
    unknown, untracked = uuid4(), call(stack.app, stack.app.repository(tracked=False), "api")
    code, out, err = await stack.priorityd("sync", "--repository", str(unknown), "--repository", str(web))
    assert (code, out, err) == (1, "", f"priorityd: no repository has the id {unknown}\n")
    code, out, err = await stack.priorityd("sync", "--repository", "acme/api", "--repository", "acme/web")
    assert (code, "of 1 changed" in out) == (1, True)
    assert err == (
        f"priorityd: acme/api ({untracked}) is not tracked: it has no row in tracked_repositories\n"
    )
    code, out, _ = await stack.priorityd("sync", "--json", "--repository", "acme/api")
    assert (code, len(json.loads(out)["errors"])) == (1, 1)


async def test_a_dry_run_lists_its_rows_for_scripts(stack: Stack, web: UUID) -> None:
    stack.app.add(stack.app.workspace(), web)
    _, out, _ = await stack.priorityd("sync", "--dry-run", "--json")
    (change,) = json.loads(out)["changes"]
    assert (change["repository_id"], change["name"]) == (str(web), "acme/web")
    assert (change["old_priority"], change["new_priority"], change["workspace_count"]) == (
        "medium",
        "high",
        1,
    )
    await stack.priorityd("sync")
    assert json.loads((await stack.priorityd("sync", "--dry-run", "--json"))[1])["changes"] == []


async def test_pinning_says_what_has_become_of_it(stack: Stack, web: UUID) -> None:
    async def said(*arguments: str) -> str:
        code, out, err = await stack.priorityd(*arguments)
        assert (code, err) == (0, "")
        return out.splitlines()[-1].removeprefix(f"acme/web ({web}) ")

    assert await said("unpin", "acme/web") == "was not pinned"
    assert await said("pin", "acme/web", "low") == "is pinned to low"
    assert await said("pin", "acme/web", "low") == "is already pinned to low"
    stack.app.add(stack.app.workspace(), web)
    assert await said("pin", str(web), "medium") == (
        "is pinned to medium, but high as long as a workspace holds it"
    )
    assert await said("unpin", str(web)) == "is no longer pinned to medium"
    _, out, _ = await stack.priorityd("unpin", "acme/web", "--json")
    answer = json.loads(out)
    assert (answer["repository_id"], answer["name"], answer["old_manual_priority"]) == (
        str(web),
        "acme/web",
        None,
    )


async def test_explaining_a_pinned_one_says_what_is_so(stack: Stack, web: UUID) -> None:
    async def answer() -> str:
        _, out, _ = await stack.priorityd("explain", "acme/web")
        return out.splitlines()[0].removeprefix(f"Repository acme/web ({web}) is ")

    await stack.priorityd("pin", "acme/web", "high")
    assert await answer() == (
        "high because it is pinned to high, and no workspace holds it. "
        "It stays high when a workspace holds it."
    )
    workspace = stack.app.workspace()
    stack.app.connection.execute("update workspaces set name = null, slug = 'acme-inc'")
    stack.app.add(workspace, web)
    await stack.priorityd("sync")
    assert await answer() == (
        "high because 1 workspace holds it (acme-inc). "
        "Without that workspace it would stay high: that is its manual priority."
    )
    await stack.priorityd("pin", "acme/web", "low")
    assert (await answer()).endswith("it would be low: that is its manual priority.")
    stack.app.remove(workspace, web)
    stack.app.connection.execute("alter type repository_priority add value 'critical'")
    await stack.priorityd("pin", "acme/web", "critical")
    assert await answer() == (
        "critical because it is pinned to critical, and no workspace holds it. Workspaces don't lower it."
    )


async def test_no_code_of_our_own_is_in_the_words(stack: Stack, web: UUID) -> None:
    untracked = call(stack.app, stack.app.repository(tracked=False), "api")
    code, _, err = await stack.priorityd("pin", "acme/api", "low")
    assert (code, err) == (1, f"priorityd: repository acme/api ({untracked}) is not tracked\n")
    stack.app.connection.execute(
        """create function no() returns trigger language plpgsql as $$ begin raise 'frozen'; end $$;
        create trigger no before update on tracked_repositories for each row execute function no()"""
    )
    code, _, err = await stack.priorityd("pin", "acme/web", "low")
    assert (code, err) == (1, f"priorityd: repository acme/web ({web}) can't be written: frozen (P0001)\n")


async def test_lists_of_jobs_may_name_repositories(stack: Stack, web: UUID) -> None:
    other = uuid4()
    arguments = ("queue", "reviews", "acme/web", str(web), str(other), "--mode", "ordered", "--json")
    _, out, _ = await stack.priorityd(*arguments)
    report = json.loads(out)
    assert [(job["repository_id"], job["name"]) for job in report["jobs"]] == [(str(web), "acme/web")]
    assert report["duplicates"] == 1
    (refused,) = report["refused"]
    assert (refused["repository_id"], refused["name"]) == (str(other), None)


async def test_a_job_that_can_not_be_cancelled_is_told_with_its_repository(stack: Stack, web: UUID) -> None:
    await stack.priorityd("queue", "reviews", "acme/web", "--mode", "ordered")
    stack.app.connection.execute(
        """create function no() returns trigger language plpgsql as $$ begin raise 'frozen'; end $$;
        create trigger no before update on background_jobs for each row execute function no()"""
    )
    (job,) = stack.app.connection.execute("select id from background_jobs").fetchone() or (None,)
    code, _, err = await stack.priorityd("jobs", "cancel", "--repository", "acme/web")
    assert (code, err) == (1, f"Not cancelled: job {job} of acme/web ({web}): frozen (P0001)\n")
