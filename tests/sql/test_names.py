"""Names: what people call repositories and workspaces, and finding a repository by its name."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg
import pytest

from tests.support.database import Database
from tests.support.world import World


def call(world: World, repository: UUID, owner: str, name: str) -> UUID:
    world.execute("update repositories set owner = %s, name = %s where id = %s", owner, name, repository)
    return repository


def found(world: World, *names: str) -> list[tuple[UUID, str]]:
    answer = world.call("find_repositories", p_names=list(names))
    return [(UUID(each["repository_id"]), each["name"]) for each in answer]


@pytest.fixture
def web(world: World) -> UUID:
    return call(world, world.tracked(), "acme", "web")


def test_a_name_finds_its_repository_and_no_other(world: World, web: UUID) -> None:
    call(world, world.tracked(), "acme", "webs")
    api = call(world, world.repository(), "acme", "api")
    assert found(world, "acme/web", "nobody/none", "acme/api", "") == [(api, "acme/api"), (web, "acme/web")]
    assert [each["tracked"] for each in world.call("find_repositories", [web, api])] == [False, True]


def test_ids_are_found_as_well_and_unknown_ones_are_absent(world: World, web: UUID) -> None:
    untracked = world.repository()
    world.add(untracked)
    answer = world.call("find_repositories", [web, untracked, uuid4(), None], ["acme/web"])
    assert {UUID(each["repository_id"]) for each in answer} == {web, untracked}


def test_a_name_of_several_finds_them_all(world: World, web: UUID) -> None:
    world.execute("alter table repositories drop constraint repositories_owner_name_key")
    other = call(world, world.repository(), "acme", "web")
    assert {repository for repository, _ in found(world, "acme/web")} == {web, other}


def test_a_tracked_row_names_a_repository_that_has_no_other_name(world: World, web: UUID) -> None:
    world.execute(
        "update tracked_repositories set organization_name = 'old', repository_name = 'name'"
        " where repository_id = %s",
        web,
    )
    assert found(world, "old/name") == [], "its name is another by now"
    world.execute("update repositories set owner = null where id = %s", web)
    assert found(world, "old/name") == [(web, "old/name")]


@pytest.mark.parametrize(("owner", "name"), [("group/team", "web"), ("acme", "日本/web%s\\'"), ("a", "/")])
def test_owners_and_names_may_have_a_slash(world: World, owner: str, name: str) -> None:
    repository = call(world, world.tracked(), owner, name)
    assert found(world, f"{owner}/{name}") == [(repository, f"{owner}/{name}")]


def test_where_only_tracked_rows_have_names_these_are_told(world: World) -> None:
    repository = world.tracked(organization_name="acme", repository_name="web")
    world.execute("alter table repositories drop column owner")
    world.add(repository)
    assert [change["name"] for change in world.sync(repository)["changes"]] == ["acme/web"]
    assert found(world, "acme/web") == [(repository, "acme/web")]


@pytest.mark.parametrize("kind", ["jsonb", "text[]", "uuid", "integer"])
def test_names_may_be_of_any_type_and_stop_nothing(world: World, web: UUID, kind: str) -> None:
    world.execute(f"alter table repositories drop column owner, add owner {kind}")
    value = {"jsonb": '{"login": "acme"}', "text[]": "{acme}", "uuid": str(web), "integer": "7"}[kind]
    world.execute(f"update repositories set owner = '{value}'")
    world.add(web)
    (change,) = world.sync(web)["changes"]
    assert change["name"] == f"{value}/web"
    assert found(world, f"{value}/web") == [(web, f"{value}/web")]


def test_where_the_tables_know_no_names_none_is_found(world: World, web: UUID) -> None:
    world.execute("alter table repositories drop column owner")
    world.execute("alter table tracked_repositories drop column organization_name")
    assert found(world, "acme/web") == []
    assert [each["name"] for each in world.call("find_repositories", [web])] == [None]


def test_a_row_without_a_repository_is_told_by_what_it_says_itself(world: World) -> None:
    said = {"priority": "low", "organization_name": "acme", "repository_name": "web"}
    row, bare = world.track(None, **said), world.track(None, priority="low")
    (page,) = world.resync(p_dry_run=True)
    assert {each["id"]: each["name"] for each in page["changes"]} == {str(row): "acme/web", str(bare): None}
    world.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'frozen'; end $$"
    )
    world.execute(
        "create trigger refuse before update on tracked_repositories for each row execute function refuse()"
    )
    (page,) = world.resync()
    assert {each["id"]: each["name"] for each in page["refused"]} == {str(row): "acme/web", str(bare): None}
    world.execute("alter table tracked_repositories drop column repository_name")
    (page,) = world.resync()
    assert [each["name"] for each in page["refused"]] == [None, None]


def test_who_may_not_read_names_is_told_of_none(database: Database, world: World, web: UUID) -> None:
    world.execute("revoke select on repositories from service_role")
    with database.connect("service_role") as caller:
        row = caller.execute(
            "select find_repositories(array[%s]::uuid[], array['acme/web'])", (web,)
        ).fetchone()
    assert row is not None
    assert [each["name"] for each in row[0]] == [None]


def test_messages_name_the_repository(world: World) -> None:
    unknown = call(world, world.repository(), "acme", "web")
    for statement in ("set_manual_priority(%s, 'low')", "explain_repository_priority(%s)"):
        with pytest.raises(psycopg.Error) as refused:
            world.execute(f"select {statement}", unknown)
        assert f"repository acme/web ({unknown}) is neither" in str(refused.value) or (
            f"repository acme/web ({unknown}) is not tracked" in str(refused.value)
        )


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ("select", "Acme"),
        ("update workspaces set name = null", "acme-inc"),
        ("update workspaces set name = ''", "acme-inc"),
        ("alter table workspaces drop column name", "acme-inc"),
        ("alter table workspaces drop column slug", "Acme"),
        ("alter table workspaces drop column name, drop column slug", None),
    ],
)
def test_a_workspace_is_shown_by_its_name_or_its_slug(world: World, change: str, shown: str | None) -> None:
    repository = world.tracked()
    world.add(repository)
    world.execute("update workspaces set name = 'Acme', slug = 'acme-inc'")
    world.execute(change)
    (workspace,) = world.call("explain_repository_priority", repository)["workspaces"]
    assert workspace.get("name") == shown
