"""Ordered jobs on the application's table, as it may be."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from priorityd.daemon.sandbox.migrate import apply_migrations, undo_migrations
from tests.support.database import Database
from tests.support.ordered_calls import DAEMON, held, job_row, queue, release, released, sent
from tests.support.schemas import SCHEMAS
from tests.support.world import World, session

pytestmark = pytest.mark.migrations

# The application's table, as it may be.

TABLES = {
    "absent": "select",
    "enum and json": """
        create type job_status as enum ('queued', 'processing', 'completed', 'failed', 'cancelled');
        create table background_jobs (
            id uuid primary key default gen_random_uuid(), type text not null, payload json,
            status job_status not null default 'queued', created_at timestamptz default now(),
            started_at timestamptz, completed_at timestamptz, failed_at timestamptz, repository_id uuid
        )""",
    "an end needs a start, and triggers look other tables up by names without a schema": """
        create table background_jobs (
            id uuid primary key default gen_random_uuid(), type text not null, payload jsonb,
            status text not null default 'queued', created_at timestamptz default now(),
            started_at timestamptz, completed_at timestamptz, failed_at timestamptz, repository_id uuid,
            check ((completed_at is null and failed_at is null) or started_at is not null),
            check ((status in ('completed', 'failed', 'cancelled')) = (completed_at is not null))
        );
        create table audit_log (job_id uuid);
        create function log_it() returns trigger language plpgsql as $$
        begin
            insert into audit_log select new.id from repositories r where r.id = new.repository_id;
            return new;
        end $$;
        create trigger log_it before insert or update on background_jobs
        for each row execute function log_it()""",
    "partitioned by time": """
        create table background_jobs (
            id uuid default gen_random_uuid(), type text, payload jsonb, status text default 'queued',
            created_at timestamptz default now(), started_at timestamptz, completed_at timestamptz,
            failed_at timestamptz, repository_id uuid, error text, primary key (id, created_at)
        ) partition by range (created_at);
        create table jobs_default partition of background_jobs default""",
    "the key of a repository is a foreign one": """
        create table background_jobs (
            id uuid primary key, type text, payload jsonb, status varchar(20) default 'queued',
            created_at timestamptz, started_at timestamptz, completed_at timestamptz, failed_at timestamptz,
            repository_id uuid references repositories on delete cascade, error varchar(500), priority integer
        )""",
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_works_on_the_table_as_it_is_found(empty_database: Database, table: str) -> None:
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    world.execute(table)
    apply_migrations(world.connection)
    high = held(world)
    jobs = queue(world, world.tracked(), high, high, data={"days": 30})
    assert released(world, 2) == jobs[1:]
    assert job_row(world, jobs[1])["payload"]["days"] == 30
    world.call("fail_refused_jobs", [jobs[1]], ["too large"])
    sent(world, jobs[2])
    assert world.call("cancel_ordered_jobs", [jobs[0]])["cancelled"] == 1
    world.execute(
        """update background_jobs set status = 'completed', started_at = now(), completed_at = now()
           where id = %s""",
        jobs[2],
    )
    assert released(world) == []
    assert [job_row(world, job)["status"] for job in jobs] == ["cancelled", "failed", "completed"]
    assert world.call("list_ordered_jobs")["found"] == 0


REFUSE = """
    create function refuse() returns trigger language plpgsql as $$
    begin
        if new.payload ->> 'refuse' = tg_op || coalesce(new.status, '') then
            raise exception 'not this one' using errcode = '{sqlstate}';
        end if;
        return new;
    end $$;
    create trigger refuse before insert or update on background_jobs for each row execute function refuse()
"""


@pytest.mark.parametrize("sqlstate", ["23514", "P0001", "P0004", "42501", "40001", "22023"])
def test_a_job_that_the_application_refuses_is_refused_alone(world: World, sqlstate: str) -> None:
    world.execute(REFUSE.format(sqlstate=sqlstate))
    repositories = [world.tracked() for _ in range(5)]
    for number, each in enumerate(repositories):
        world.execute(
            "update repositories set owner = 'acme', name = %s where id = %s", f"service-{number}", each
        )
    jobs = [
        {"repository_id": str(each), "data": {"refuse": what}}
        for each, what in zip(
            repositories, ["", "INSERTqueued", "UPDATEqueued", "UPDATEcancelled", ""], strict=True
        )
    ]
    answer = world.call("queue_repository_jobs", json.dumps(jobs), "reviews")
    why = f"not this one ({sqlstate})"
    assert [(each["position"], each["reason"]) for each in answer["refused"]] == [(2, why)]
    ids = [UUID(each["job_id"]) for each in answer["jobs"]]

    answer = release(world, limit=3)
    assert [UUID(each["job_id"]) for each in answer["jobs"]] == [ids[0], ids[2]]
    assert [(UUID(each["job_id"]), each["name"], each["reason"]) for each in answer["refused"]] == [
        (ids[1], "acme/service-2", why)
    ]
    assert world.call("return_unsent_jobs", DAEMON, ids) == {"returned": 2}

    answer = world.call("cancel_ordered_jobs", ids)
    (refused,) = answer["refused"]
    assert (answer["cancelled"], refused) == (
        3,
        {
            "job_id": str(ids[2]),
            "repository_id": str(repositories[3]),
            "name": "acme/service-3",
            "reason": why,
        },
    )
    assert job_row(world, ids[2])["status"] == "queued"


def test_a_job_that_could_not_be_written_is_released_when_it_can_be(world: World) -> None:
    world.execute(REFUSE.format(sqlstate="P0001"))
    repository = world.tracked()
    (first,) = queue(world, repository, data={"refuse": "UPDATEqueued"})
    (second,) = queue(world, repository)
    assert released(world) == [second]
    world.execute("drop trigger refuse on background_jobs")
    assert released(world, daemon=uuid4()) == []
    world.execute("update priorityd.ordered_jobs set aside_until = aside_until - interval '61 s'")
    assert released(world, daemon=uuid4()) == [first]


def test_a_payload_that_can_not_be_read_ends_its_job_alone(empty_database: Database) -> None:
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    world.execute(TABLES["enum and json"])
    apply_migrations(world.connection)
    jobs = queue(world, *[world.tracked() for _ in range(3)])
    for job, payload in zip(jobs, ['{"a": "\\u0000"}', '{"a": 1e200000}'], strict=False):
        world.execute("update background_jobs set payload = %s where id = %s", payload, job)
    assert released(world) == jobs[2:]
    for job, status in zip(jobs, ["failed", "failed", "queued"], strict=True):
        assert world.value("select status from background_jobs where id = %s", job) == status


@pytest.mark.parametrize(
    ("words", "missing"), [("queued, completed, failed", None), ("queued, failed, done", "completed")]
)
def test_statuses_without_the_words_that_are_needed_are_told(
    empty_database: Database, words: str, missing: str | None
) -> None:
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    labels = ", ".join(f"'{word}'" for word in words.split(", "))
    world.execute(f"create type job_status as enum ({labels})")
    world.execute(TABLES["enum and json"].split(";", 1)[1])
    apply_migrations(world.connection)
    if missing:
        with pytest.raises(psycopg.Error, match=f"its status enum lacks {missing}"):
            queue(world, world.tracked())
        return
    jobs = queue(world, world.tracked(), world.tracked())
    assert released(world, limit=1) == jobs[:1]
    assert world.call("cancel_ordered_jobs", [jobs[1]])["cancelled"] == 1
    assert job_row(world, jobs[1])["status"] == "failed"


def test_where_no_job_waits_in_order_the_table_may_be_of_any_shape(empty_database: Database) -> None:
    """As in direct mode, where a daemon with an event key asks for jobs all the same."""
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    world.execute("create table background_jobs (id bigint primary key, state text)")
    apply_migrations(world.connection)
    assert release(world)["jobs"] == []
    assert world.call("count_ordered_jobs")["jobs"] == []
    with pytest.raises(psycopg.Error, match="background_jobs can't hold ordered jobs: created_at is missing"):
        queue(world, world.tracked())
    assert release(world)["jobs"] == []


@pytest.mark.parametrize(
    "named",
    [
        {"p_in_flight": 10_001},
        {"p_promote_after_seconds": 1e9},
        {"p_lease_seconds": 700_000.0},
        {"p_lease_seconds": float("nan")},
        {"p_claim_seconds": 0.5},
        {"p_most_leases": 0},
    ],
)
def test_terms_out_of_bounds_are_refused(world: World, named: dict[str, Any]) -> None:
    with pytest.raises(psycopg.Error, match="p_most_leases between 1 and 1000") as refused:
        world.call("release_ordered_jobs", DAEMON, **({"p_in_flight": 1} | named))
    assert refused.value.sqlstate == "22023"


def test_a_table_with_jobs_in_it_outlives_the_undo_of_the_migration_that_made_it(
    empty_database: Database,
) -> None:
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    apply_migrations(world.connection)
    queue(world, world.tracked())
    undo_migrations(world.connection)
    assert world.value("select status from background_jobs") == "queued"


@pytest.mark.parametrize("body", ["return null;", "new.status := old.status;", "new := old;"])
def test_a_job_that_silently_stays_as_it_was_is_refused_and_not_forgotten(world: World, body: str) -> None:
    world.execute(
        f"""create function keep() returns trigger language plpgsql as $$ begin
                if old.payload ? 'keep' and new.status <> 'queued' then {body} end if; return new; end $$;
            create trigger keep before update on background_jobs for each row execute function keep()"""
    )
    (kept,) = queue(world, world.tracked(), data={"keep": True})
    (other,) = queue(world, world.tracked())
    answer = world.call("cancel_ordered_jobs", [kept, other])
    assert answer["cancelled"] == 1
    assert [(UUID(each["job_id"]), "a trigger or rule" in each["reason"]) for each in answer["refused"]] == [
        (kept, True)
    ]
    assert released(world) == [kept]


def test_a_job_that_is_silently_not_added_is_refused(world: World) -> None:
    world.execute(
        """create function drop_it() returns trigger language plpgsql as $$ begin
               if new.payload ? 'drop' then return null; end if; return new; end $$;
           create trigger drop_it before insert on background_jobs for each row execute function drop_it()"""
    )
    jobs = [{"repository_id": str(world.tracked()), "data": data} for data in ({}, {"drop": 1}, {})]
    answer = world.call("queue_repository_jobs", json.dumps(jobs), "reviews")
    assert (answer["queued"], len(answer["jobs"])) == (2, 2)
    (refused,) = answer["refused"]
    assert refused["position"] == 2
    assert "kept it from being queued" in refused["reason"]


@pytest.mark.parametrize(
    ("function", "more", "ended"),
    [
        ("cancel_ordered_jobs", (), {"cancelled": 1, "in_flight": 0, "locked": 1, "refused": []}),
        ("fail_refused_jobs", (["no", "no"],), {"failed": 1, "refused": []}),
        ("settle_lost_jobs", (["completed", "completed"],), {"refused": []}),
    ],
)
def test_ending_several_jobs_waits_for_none_while_it_holds_another(
    database: Database, world: World, function: str, more: tuple[list[str], ...], ended: dict[str, Any]
) -> None:
    """Whoever holds the one and waits for the other would end in a deadlock."""
    jobs = queue(world, world.tracked(), world.tracked())
    if more:
        assert released(world) == jobs
    worker = session(database, autocommit=False)
    worker.execute("select from background_jobs where id = %s for update", jobs[1])
    assert world.call(function, jobs, *more) == ended
    assert [job_row(world, job)["status"] == "queued" for job in jobs] == [False, True]
    worker.connection.rollback()
    assert world.call(function, jobs, *more)["refused"] == []
    assert job_row(world, jobs[1])["status"] != "queued"
    assert world.call("list_ordered_jobs")["found"] == 0


def test_an_application_may_queue_in_a_transaction_that_has_constraints_to_meet_yet(
    database: Database, world: World
) -> None:
    world.execute(
        """create table parents (id int primary key);
           create table children (id int references parents deferrable initially deferred)"""
    )
    application = session(database, autocommit=False)
    application.execute("insert into children values (1)")
    (job,) = queue(application, world.tracked())
    application.execute("insert into children values (2); insert into parents values (1), (2)")
    application.connection.commit()
    assert released(world) == [job]
