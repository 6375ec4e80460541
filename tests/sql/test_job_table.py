"""Job telemetry where the application's table is not as expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from priorityd.daemon.sandbox.migrate import apply_migrations
from tests.support.database import schema_sql, superuser_beside
from tests.support.job_table import Jobs, Reader
from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database

pytestmark = pytest.mark.migrations


def test_without_the_table_it_is_off_and_comes_on_when_the_table_does(empty_database: Database) -> None:
    world = session(empty_database)
    world.connection.execute(schema_sql("roles"))
    world.connection.execute(schema_sql("application"))
    definition = schema_sql("application")
    apply_migrations(world.connection)
    world.execute("drop table background_jobs")
    off = Reader(world).ask()
    assert off == {"available": False, "table_exists": False, "reason": "there is no table background_jobs"}

    world.connection.execute(definition)
    reader = Reader(world).poll()
    Jobs(world).end()
    assert len(reader.poll().jobs) == 1
    apply_migrations(world.connection)
    assert (
        world.value("select count(*) from pg_indexes where indexname like 'idx\\_background\\_jobs\\_%%'")
        == 3
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("drop column failed_at", "failed_at"),
        ("alter column created_at type timestamp", "created_at"),
        ("alter column payload type text", "payload"),
    ],
)
def test_says_what_the_table_lacks(world: World, change: str, reason: str) -> None:
    world.execute("alter table background_jobs alter column payload drop default")
    world.execute(f"alter table background_jobs {change}")
    answer = Reader(world).ask()
    assert (answer["available"], answer["table_exists"]) == (False, True)
    assert answer["reason"].endswith(reason)


def test_a_status_may_be_an_enum_and_a_payload_json(world: World, jobs: Jobs) -> None:
    world.execute(
        """drop index idx_background_jobs_queued;
           alter table background_jobs drop constraint background_jobs_status_check;
           create type job_status as enum ('queued', 'processing', 'completed', 'failed', 'cancelled');
           alter table background_jobs alter column status drop default,
               alter column status type job_status using status::job_status,
               alter column payload drop default, alter column payload type json"""
    )
    apply_migrations(world.connection)
    reader = Reader(world).poll()
    jobs.end("low")
    assert reader.poll().jobs == [("low", "completed")]


def test_a_large_table_without_the_indexes_is_left_alone(world: World, jobs: Jobs) -> None:
    world.execute("drop index idx_background_jobs_started")
    jobs.end()
    assert Reader(world).ask()["available"] is True
    world.execute("alter table background_jobs alter column error set storage plain")
    world.execute(
        "insert into background_jobs (error) select repeat('x', 3000) from generate_series(1, 3000)"
    )
    reason = Reader(world).ask()["reason"]
    assert "create index concurrently idx_background_jobs_started" in reason


def test_a_large_table_gets_its_indexes_from_whoever_can_wait(world: World) -> None:
    """Building one makes the table's writers wait; the warning holds the statements that do not."""
    for name in ("finished", "started", "queued"):
        world.execute(f"drop index idx_background_jobs_{name}")
    world.execute("alter table background_jobs alter column error set storage plain")
    world.execute(
        "insert into background_jobs (error) select repeat('x', 7000) from generate_series(1, 13000)"
    )
    warnings: list[str] = []
    world.connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    apply_migrations(world.connection)
    (warning,) = [warning for warning in warnings if "job telemetry is off" in warning]
    statements = warning.split("transaction: ")[1].split("; ")
    assert len(statements) == 3
    assert Reader(world).ask()["available"] is False
    for statement in statements:
        world.execute(statement)
    assert Reader(world).ask()["available"] is True


def partitioned(world: World) -> None:
    """The application's table of jobs, divided twice."""
    world.execute(
        """alter table background_jobs rename to flat;
           create table background_jobs (like flat including defaults) partition by range (created_at)"""
    )
    world.execute(
        """create table jobs_old partition of background_jobs for values from (minvalue) to ('2025-01-01');
           create table jobs_now partition of background_jobs for values from ('2025-01-01') to (maxvalue)
               partition by list (type);
           create table jobs_now_reviews partition of jobs_now for values in ('reviews');
           create table jobs_now_others partition of jobs_now default"""
    )


def test_a_partitioned_table_is_as_large_as_its_partitions(world: World, jobs: Jobs) -> None:
    partitioned(world)
    size = "select priorityd.table_size('background_jobs')"
    assert world.value(size) == 0
    jobs.add(job_type="reviews")
    jobs.add()
    assert world.value(size) == 2 * 8192
    assert world.value("select priorityd.table_size(to_regclass('nothing'))") is None


def test_a_small_partitioned_table_is_read_like_any(world: World, jobs: Jobs) -> None:
    partitioned(world)
    apply_migrations(world.connection)
    reader = Reader(world).poll()
    jobs.end("low")
    jobs.add("high", job_type="reviews")
    assert reader.poll().jobs == [("low", "completed")]
    assert [each["priority"] for each in reader.queued] == ["high"]
    assert (
        world.value("select count(*) from priorityd.missing_indexes() where table_name = 'background_jobs'")
        == 0
    )


def test_a_large_partitioned_table_gets_its_indexes_without_anybody_waiting(world: World, jobs: Jobs) -> None:
    partitioned(world)
    world.execute("alter table jobs_now_others alter column error set storage plain")
    world.execute(
        "insert into background_jobs (error) select repeat('x', 7000) from generate_series(1, 13000)"
    )
    world.execute("delete from priorityd.indexes where table_name <> 'background_jobs'")
    apply_migrations(world.connection)
    reason = Reader(world).ask()["reason"]
    assert "create index concurrently" in reason, "not built by the migration"
    missing = """select statements from priorityd.missing_indexes(true)
                 where table_name = 'background_jobs' order by name"""
    for (statements,) in world.execute(missing).fetchall():
        world.execute(statements[0])
        world.execute(statements[1])  # and is interrupted: the rest is left for the next time
    leaf = "idx_background_jobs_queued_%"
    with superuser_beside(world.connection) as superuser:
        superuser.execute(
            "update pg_index set indisvalid = false where indexrelid in"
            f" (select oid from pg_class where relname like '{leaf}' and relkind = 'i')".encode()
        )
    for (statements,) in world.execute(missing).fetchall():
        for statement in statements:
            world.execute(statement)
    assert world.execute(missing).fetchall() == []
    assert Reader(world).poll().last["available"] is True


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("'queued', 'running', 'completed'", None),
        ("'waiting', 'done'", "the status of background_jobs is an enum without the label queued"),
    ],
)
def test_a_status_may_lack_words(world: World, labels: str, reason: str | None) -> None:
    world.execute(
        f"""drop index idx_background_jobs_queued;
            alter table background_jobs drop constraint background_jobs_status_check;
            create type job_status as enum ({labels});
            alter table background_jobs alter column status drop default,
                alter column status type job_status using status::job_status"""
    )
    apply_migrations(world.connection)
    if reason:
        assert Reader(world).ask() == {"available": False, "table_exists": True, "reason": reason}
        return
    reader = Reader(world).poll()
    world.execute(
        """insert into background_jobs (status, created_at, started_at, completed_at)
           values ('completed', now() - interval '9 s', now() - interval '5 s', now()),
               ('running', now(), now(), null), ('queued', now(), null, null)"""
    )
    assert reader.poll().jobs == [("medium", "completed")]
    assert [each["jobs"] for each in reader.queued] == [1]


def test_other_words_for_a_status_count_as_none_of_ours(world: World) -> None:
    world.execute("alter table background_jobs drop constraint background_jobs_status_check")
    reader = Reader(world).poll()
    world.execute(
        """insert into background_jobs (status, created_at, started_at, completed_at)
           values ('done', now() - interval '9 s', now(), now()), ('cancelled', now(), null, now()),
               ('waiting', now(), null, null)"""
    )
    assert reader.poll().jobs == [("medium", "cancelled")]
    assert reader.queued == []
