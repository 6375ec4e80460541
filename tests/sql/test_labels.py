"""A fourth priority, `critical`, which is above high and never lowered, and words that mean nothing."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from priorityd.daemon.sandbox.migrate import apply_migrations, undo_migrations
from tests.support.effort import some_of
from tests.support.schemas import Schema
from tests.support.world import Row, World

pytestmark = pytest.mark.migrations

SCHEMAS = {
    "enum": Schema(
        "create type level as enum ('critical', 'high', 'medium', 'low')", "level default 'medium'"
    ),
    "enum in another order": Schema(
        "create type level as enum ('high', 'medium', 'low', 'critical')", "level default 'medium'"
    ),
    "text": Schema(),
    "domain": Schema(
        "create domain level as text check (value in ('critical', 'high', 'medium', 'low'))", "level"
    ),
}
WITHOUT = Schema("create type level as enum ('high', 'medium', 'low')", "level default 'medium'")


@pytest.fixture(params=some_of(SCHEMAS, "enum", "text"))
def before(request: pytest.FixtureRequest, bare: World) -> World:
    """The application before the migrations."""
    request.param.create(bare.connection)
    return bare


@pytest.fixture
def world(before: World) -> World:
    apply_migrations(before.connection)
    return before


def test_critical_outside_is_adopted_like_a_high_that_somebody_set(world: World) -> None:
    for repair in (world.sync, lambda _: world.sweep(), lambda _: world.resync(1)):
        repository = world.tracked(priority="critical")
        repair(repository)
        assert world.row(repository) == Row("critical", False, 0, "critical")
    assert world.sweep()["changed"] == 0


def test_a_workspace_does_not_lower_it(world: World) -> None:
    adopted, found_inside = world.tracked(priority="critical"), world.tracked()
    world.sync(adopted)
    workspaces = [world.add(adopted), world.add(found_inside)]
    world.sync(adopted, found_inside)
    world.execute("update tracked_repositories set priority = 'critical'")
    world.sweep()
    assert world.row(adopted) == Row("critical", True, 1, "critical")
    assert world.row(found_inside) == Row("critical", True, 1, "critical"), "no rule ever makes it"
    assert world.sweep()["changed"] == 0
    assert sum(page["changed"] for page in world.resync(1)) == 0
    assert world.call("workspace_priority_snapshot")["inversions"] == 0
    for repository, workspace in zip((adopted, found_inside), workspaces, strict=True):
        world.remove(repository, workspace)
    world.sweep()
    assert {world.row(one) for one in (adopted, found_inside)} == {Row("critical", False, 0, "critical")}
    assert {new for _, new, *_ in world.audit()} == {"critical", "high"}, (
        "the one was high, and then critical"
    )


def test_what_somebody_wrote_over_a_critical_is_put_back_unless_it_was_unpinned(world: World) -> None:
    repository = world.tracked(priority="critical")
    world.add(repository)
    world.sync(repository)
    world.execute("update tracked_repositories set priority = 'high'")
    assert world.sweep()["changed"] == 1
    assert world.row(repository) == Row("critical", True, 1, "critical")
    world.pin(repository, None)
    assert world.row(repository) == Row("high", True, 1)
    assert world.sweep()["changed"] == 0


def test_the_first_fill_keeps_it_inside_and_outside(before: World) -> None:
    inside, outside = before.tracked(priority="critical"), before.tracked(priority="critical")
    before.add(inside)
    apply_migrations(before.connection)
    assert before.row(inside) == Row("critical", True, 1, "critical")
    assert before.row(outside) == Row("critical", False, 0, "critical")
    assert sorted(before.audit()) == [
        ("critical", "critical", False, False, 0, "migration"),  # the override is on record
        ("critical", "critical", False, True, 1, "migration"),
    ]
    assert before.sweep()["changed"] == 0


def test_rollback_and_uninstalling_keep_it(world: World) -> None:
    known, unknown = world.tracked(priority="critical"), world.tracked()
    world.add(known)
    world.add(unknown)
    world.sync(known, unknown)
    world.call("rollback_workspace_priorities")
    assert world.row(known) == Row("critical", False, 0, "critical")
    world.sync(known, unknown)
    world.execute("update tracked_repositories set priority = 'critical' where repository_id = %s", unknown)
    undo_migrations(world.connection)
    assert world.value("select array_agg(distinct priority::text) from tracked_repositories") == ["critical"]


def test_it_can_be_pinned_and_unpinned(world: World) -> None:
    repository = world.tracked()
    world.pin(repository, "critical")
    assert world.row(repository) == Row("critical", False, 0, "critical")
    world.add(repository)
    world.sync(repository)
    assert world.row(repository) == Row("critical", True, 1, "critical")
    world.pin(repository, "low")
    assert world.row(repository) == Row("high", True, 1, "low")
    with pytest.raises(psycopg.Error, match="has no priority 'urgent', only critical, high, medium, low"):
        world.pin(repository, "urgent")


def test_where_the_label_is_missing_it_can_t_be_pinned_until_it_is_there(bare: World) -> None:
    WITHOUT.create(bare.connection)
    apply_migrations(bare.connection)
    repository, found = bare.tracked(), bare.tracked()
    with pytest.raises(psycopg.Error, match="has no priority 'critical', only high, medium, low") as refused:
        bare.pin(repository, "critical")
    assert refused.value.sqlstate == "22023"
    bare.execute("alter type level add value 'critical'")
    assert bare.pin(repository, "critical")["manual_priority"] == "critical"
    bare.execute("update tracked_repositories set priority = 'critical' where repository_id = %s", found)
    bare.add(found)
    bare.sweep()
    assert bare.row(found) == Row("critical", True, 1, "critical")
    assert bare.sweep()["changed"] == 0


def test_jobs_know_three_priorities_and_critical_ranks_with_high(world: World) -> None:
    repository, medium = world.tracked(priority="critical"), world.tracked()
    world.sync(repository, medium)
    known = world.call("get_repository_priorities", [repository])[str(repository)]
    assert known == {"priority": "critical", "is_workspace_repo": False, "workspace_count": 0}
    jobs = Jsonb([{"repository_id": str(one)} for one in (medium, repository)])
    events = world.call("build_repository_job_events", "reviews", jobs)["events"]
    assert [event["data"]["priority"] for event in events] == [50, 100]
    metadata = events[1]["data"]["metadata"]
    assert (metadata["originalPriority"], metadata["priority"]) == ("critical", "high")

    queued = world.call("queue_repository_jobs", jobs, "reviews")["jobs"]
    assert [job["priority"] for job in queued] == ["medium", "high"]
    released = world.call("release_ordered_jobs", repository, 2)["jobs"]
    assert [(job["repository_id"], job["priority"]) for job in released] == [
        (str(repository), "high"),
        (str(medium), "medium"),
    ]
    assert world.call("priorityd.queued_priority", "critical") == "high"
    assert world.call("priorityd.job_priority", "critical", False) == "high"


def test_an_explanation_shows_it(world: World) -> None:
    repository = world.tracked(priority="critical")
    world.add(repository)
    world.sync(repository)
    explained = world.call("explain_repository_priority", repository)
    assert (explained["tracked"]["priority"], explained["tracked"]["manual_priority"]) == ("critical",) * 2
    assert (explained["expected"]["priority"], explained["correct"]) == ("critical", True)


def test_words_that_mean_nothing_are_named_before_they_are_replaced(bare: World) -> None:
    Schema().create(bare.connection)
    bare.tracked(priority="urgent")
    bare.tracked(priority="critical")
    warnings: list[str] = []
    bare.connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    apply_migrations(bare.connection)
    assert [line for line in warnings if "mean nothing" in line] == [
        "tracked_repositories.priority holds words that mean nothing to priorityd: 'urgent'"
    ]
    bare.sweep()
    assert ("urgent", "medium") in {(old, new) for old, new, *_ in bare.audit()}, "on record"
