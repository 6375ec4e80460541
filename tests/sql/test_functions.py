"""Look-ups, and what the daemon asks."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from priorityd.core.database.schema import MIGRATION_SET
from priorityd.daemon.migration_files import migration_files
from tests.support.world import session

if TYPE_CHECKING:
    from tests.support.database import Database
    from tests.support.world import World


def test_tells_priorities_of_tracked_repositories_only(world: World) -> None:
    inside, outside, untracked = world.tracked(), world.tracked(priority="low"), world.repository()
    world.track(None)
    workspace = world.add(inside)
    world.add(untracked, workspace)
    world.sync(inside)
    assert world.call(
        "get_repository_priorities", [inside, outside, inside, untracked, None, uuid.uuid4()]
    ) == {
        str(inside): {"priority": "high", "is_workspace_repo": True, "workspace_count": 1},
        str(outside): {"priority": "low", "is_workspace_repo": False, "workspace_count": 0},
    }


def test_lists_workspace_repositories_once_each_in_pages(world: World) -> None:
    workspaces = [world.workspace() for _ in range(2)]
    world.execute("insert into repositories (id) values (%s)", uuid.UUID(int=0))
    repositories = [uuid.UUID(int=0), *(world.repository() for _ in range(4))]
    for repository in repositories:
        for workspace in workspaces:
            world.add(repository, workspace)
    world.repository()
    found, after = [], None
    while True:
        page = world.call("get_workspace_repository_ids", after, 2)
        found += page["repository_ids"]
        after = page["next_after"]
        if after is None:
            break
    assert found == sorted(map(str, repositories))
    assert world.call("get_workspace_repository_ids")["repository_ids"] == found


def test_lists_nothing_when_there_is_nothing(world: World) -> None:
    assert world.call("get_workspace_repository_ids") == {"repository_ids": [], "next_after": None}


def test_explains_a_repository(world: World) -> None:
    repository = world.tracked()
    named = world.value("insert into workspaces (name) values ('Ours') returning id")
    world.add(repository, named)
    before = world.call("explain_repository_priority", repository)
    assert before["correct"] is False
    assert before["expected"] == {"priority": "high", "is_workspace_repo": True, "workspace_count": 1}
    assert before["last_changes"] == []

    world.sync(repository)
    nameless = world.add(repository)
    world.sync(repository)
    world.pin(repository, "low")
    after = world.call("explain_repository_priority", repository)
    assert after["correct"] is True
    assert after["other_rows"] == []
    assert after["tracked"] | {"id": None} == {
        "id": None, "priority": "high", "is_workspace_repo": True, "workspace_count": 2,
        "manual_priority": "low", "tracking_enabled": True, "expected_priority": "high", "correct": True,
    }  # fmt: skip
    assert [(w["id"], w.get("name")) for w in after["workspaces"]] == [
        (str(named), "Ours"),
        (str(nameless), None),
    ]
    assert all(w["added_at"] for w in after["workspaces"])
    assert [
        (c["old_priority"], c["new_priority"], c["old_manual_priority"], c["manual_priority"])
        for c in after["last_changes"]
    ] == [("high", "high", None, "low"), ("medium", "high", None, None)]


def test_explains_with_the_ten_newest_changes_first(world: World) -> None:
    repository = world.tracked()
    for _ in range(6):
        workspace = world.add(repository)
        world.sync(repository)
        world.remove(repository, workspace)
        world.sync(repository)
    explained = world.call("explain_repository_priority", repository)
    changes = explained["last_changes"]
    assert (len(changes), explained["changes_in_all"]) == (10, 12)
    assert [c["id"] for c in changes] == sorted((c["id"] for c in changes), reverse=True)
    assert changes[0]["new_priority"] == "medium"


def test_explains_with_a_hundred_workspaces_those_that_count_first(world: World) -> None:
    repository = world.tracked()
    world.execute(
        """with w as (
               insert into workspaces (name, is_active)
               select 'w' || n, n > 500 from generate_series(1, 5000) n
               returning id, is_active
           )
           insert into workspace_repositories (workspace_id, repository_id, added_at)
           select id, %s, case when is_active then now() else now() - interval '1 day' end from w""",
        repository,
    )
    world.sync(repository)
    explained = world.call("explain_repository_priority", repository)
    assert (explained["workspaces_in_all"], explained["expected"]["workspace_count"]) == (5_000, 4_500)
    assert len(explained["workspaces"]) == 100
    assert all(workspace["counts"] and workspace["name"] for workspace in explained["workspaces"])
    assert len(str(explained)) < 30_000


@pytest.mark.parametrize(
    ("type_and_value", "told"),
    [
        ("timestamp '2025-01-03 12:00'", "2025-01-03T12:00:00+00:00"),
        ("date '2025-01-03'", "2025-01-03T00:00:00+00:00"),
        ("text '2025-01-03 13:00+01'", "2025-01-03T12:00:00+00:00"),
        ("text 'last week'", None),
        ("bigint '1735905600000'", None),
        ("timestamptz '-infinity'", None),
        ("timestamptz '0044-03-15 BC'", None),
        ("timestamp '12025-01-03 12:00'", None),
    ],
)
def test_tells_when_a_membership_began_whatever_the_type_of_the_column(
    world: World, type_and_value: str, told: str | None
) -> None:
    kind = type_and_value.split()[0]
    world.execute(
        "alter table workspace_repositories drop column added_at;"
        f"alter table workspace_repositories add added_at {kind} default {type_and_value}"
    )
    repository = world.tracked()
    world.add(repository)
    (workspace,) = world.call("explain_repository_priority", repository)["workspaces"]
    assert workspace.get("added_at") == told


def test_explains_an_untracked_repository_by_its_workspaces(world: World) -> None:
    repository = world.repository()
    world.add(repository)
    explained = world.call("explain_repository_priority", repository)
    assert (explained["tracked"], explained["other_rows"]) == (None, [])
    assert explained["expected"] == {"priority": "high", "is_workspace_repo": True, "workspace_count": 1}
    assert explained["correct"] is True, "there is no row that could be wrong"


def test_says_when_there_is_nothing_to_explain(world: World) -> None:
    with pytest.raises(psycopg.Error, match="neither tracked nor in a workspace") as refused:
        world.call("explain_repository_priority", world.repository())
    assert refused.value.sqlstate == "PT404"


def test_a_row_without_a_repository_is_in_no_workspace_whatever_its_flag_says(world: World) -> None:
    world.add(world.tracked())
    world.resync()
    for priority in ("high", "low"):
        world.track(None, priority=priority, is_workspace_repo=True)
    snapshot = world.call("workspace_priority_snapshot")
    assert (snapshot["held"], snapshot["inversions"]) == (1, 0)


def test_the_snapshot_counts(world: World) -> None:
    world.call("open_priority_outbox")
    world.tracked()
    world.tracked(is_workspace_repo=None)
    world.tracked(is_workspace_repo=True, workspace_count=1, priority="low")
    high = world.tracked()
    workspace = world.add(high)
    world.add(world.repository(), workspace)
    world.sync(high)
    snapshot = world.call("workspace_priority_snapshot")
    counts = {(r["is_workspace_repo"], r["priority"]): r["count"] for r in snapshot["repositories"]}
    assert counts == {
        (False, "medium"): 1,
        (None, "medium"): 1,
        (True, "low"): 1,
        (True, "high"): 1,
    }
    # The flagged row at low is in no workspace, so it is not an inversion.
    assert (snapshot["held"], snapshot["inversions"]) == (1, 0)
    assert (snapshot["untracked"], snapshot["outbox_pending"]) == (1, 1)
    assert snapshot["taken_at"]
    unsynced = world.tracked()
    world.add(unsynced, workspace)
    snapshot = world.call("workspace_priority_snapshot")
    assert (snapshot["held"], snapshot["inversions"]) == (2, 1), "memberships are counted, not flags"
    world.remove(unsynced, workspace)
    world.execute("update repository_priority_changes set dispatched_at = now()")
    snapshot = world.call("workspace_priority_snapshot")
    assert (snapshot["outbox_pending"], snapshot["outbox_oldest_seconds"]) == (0, 0)


# The daemon.


def test_a_beat_is_kept_and_beats_of_the_dead_and_of_a_wrong_clock_are_cleared(world: World) -> None:
    daemon, dead = uuid.uuid4(), uuid.uuid4()
    from_the_future = uuid.uuid4()
    first = world.call("beat_workspace_priorities", daemon)["beat_at"]
    second = world.call("beat_workspace_priorities", daemon)["beat_at"]
    assert second > first
    world.execute("insert into workspace_priority_heartbeats values (%s, now() - interval '25 hours')", dead)
    world.execute(
        "insert into workspace_priority_heartbeats values (%s, now() + interval '25 hours')", from_the_future
    )
    third = world.call("beat_workspace_priorities", daemon)["beat_at"]
    rows = world.execute("select daemon_id, to_jsonb(beat_at) from workspace_priority_heartbeats").fetchall()
    assert rows == [(daemon, third)]


def test_the_check_describes_the_database(world: World) -> None:
    check = world.call("check_workspace_priorities")
    version = check["schema_version"]
    assert version == world.call("workspace_priority_schema_version")
    assert (version["set"], version["works_from"]) == (MIGRATION_SET, MIGRATION_SET)
    assert {unit.split()[0] for unit in version["units"]} == {
        file.name.split("_")[0] for file in migration_files()
    }
    assert (check["hidden"], check["missing_indexes"]) == ([], [])
    assert (check["memberships"]["own"], check["memberships"]["inlined"]) == (False, True)
    assert check["role"] == world.value("select current_user")
    assert check["publication"] == {
        "exists": True,
        "owner": world.value("select pubowner::regrole::text from pg_publication"),
        "tables": ["tracked_repositories", "workspace_priority_heartbeats", "workspace_repositories"],
        "missing": [],
        "unidentified": [],
        "partitioned": [],
        "flaws": {},
        "repairs": {},
        "unsafe": [],
    }
    assert (check["missing_functions"], check["ungranted"]) == ([], [])
    assert check["writes"] == {"rows": 0, "refused": []}
    assert check["workspace_repositories"] == {
        "exists": True, "row_level_security": True, "replica_identity": "default", "primary_key": ["id"],
        "delete_names_repository": False,
    }  # fmt: skip
    world.execute("alter publication supabase_realtime drop table tracked_repositories")
    check = world.call("check_workspace_priorities")
    assert check["publication"]["missing"] == ["tracked_repositories"]


KEY = "workspace_id, repository_id"
BY_KEY = (
    f"alter table workspace_repositories drop constraint workspace_repositories_pkey, add primary key ({KEY})"
)
IDENTITY = "alter table workspace_repositories replica identity"


@pytest.mark.parametrize(
    ("changes", "names_it"),
    [
        ([], False),
        (["alter table workspace_repositories disable row level security"], False),
        ([f"{IDENTITY} full"], False),
        ([f"{IDENTITY} full", "alter table workspace_repositories disable row level security"], True),
        ([BY_KEY], True),
        ([BY_KEY, f"{IDENTITY} full"], True),
        ([BY_KEY, f"{IDENTITY} nothing"], False),
        ([f"{IDENTITY} using index workspace_repositories_workspace_id_repository_id_key"], False),
        (
            [
                f"{IDENTITY} using index workspace_repositories_workspace_id_repository_id_key",
                "alter table workspace_repositories disable row level security",
            ],
            True,
        ),
    ],
)
def test_the_check_knows_whether_a_delete_names_its_repository(
    world: World, changes: list[str], names_it: bool
) -> None:
    for change in changes:
        world.execute(change)
    check = world.call("check_workspace_priorities")["workspace_repositories"]
    assert check["delete_names_repository"] is names_it


def test_every_call_asks_for_read_committed_whatever_a_role_or_database_has(world: World) -> None:
    """An older snapshot hides memberships, and PostgREST 14 retries its failures (40001) indefinitely."""
    others = world.execute(
        """select p.proname from pg_proc p
           where p.pronamespace = 'public'::regnamespace
               and p.proname = any (array(select unnest(m.functions) from priorityd.migrations m))
               and ('default_transaction_isolation=read committed' = any (p.proconfig)) is not true"""
    )
    assert others.fetchall() == []


def test_service_role_can_do_all_of_it(database: Database) -> None:
    """On a project's own terms: the role of the key, its privileges, row level security on everywhere."""
    world = session(database)
    repository = world.tracked()
    world.add(repository)
    world.connection.execute("set role service_role")
    world.call("open_priority_outbox")
    assert world.sync(repository, p_trigger="event")["changed"] == 1
    world.sweep()
    world.resync()
    world.pin(repository, "low")
    assert world.call("get_repository_priorities", [repository])
    assert world.call("get_workspace_repository_ids")["repository_ids"] == [str(repository)]
    assert world.call("explain_repository_priority", repository)["correct"]
    assert world.call("workspace_priority_snapshot")["outbox_pending"] == 1
    assert world.call("check_workspace_priorities")["role"] == "service_role"
    world.call("beat_workspace_priorities", uuid.uuid4())
    assert world.call("rollback_workspace_priorities")["changed"] == 1
    world.execute("update repository_priority_changes set claimed_at = now(), attempts = attempts + 1")
    world.execute("delete from repository_priority_changes")
