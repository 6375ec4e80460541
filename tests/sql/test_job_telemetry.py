"""Each job is counted once and every overtaking is found, whatever order commits and daemons come in."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from priorityd.core.priorities import PRIORITIES, SCORES
from priorityd.daemon.sandbox.migrate import apply_migrations
from tests.support.database import schema_sql, superuser_beside
from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database, Server

RANK = {"low": 1, "medium": 2, "high": 3}


class Jobs:
    """The application's hands on its job table; times are seconds before now."""

    def __init__(self, world: World) -> None:
        self.world = world

    def add(
        self,
        priority: object = None,
        *,
        status: str = "queued",
        created: float = 100,
        started: float | None = None,
        ended: float | None = None,
        repository: UUID | None = None,
        job_type: str | None = None,
        promoted: bool | None = None,
    ) -> UUID:
        column = "failed_at" if status == "failed" else "completed_at"
        return self.world.value(
            f"""insert into background_jobs
                    (type, status, payload, repository_id, created_at, started_at, {column})
                select %s, %s, jsonb_strip_nulls(jsonb_build_object(
                        'priority', %s::jsonb, 'metadata', jsonb_build_object('promoted', %s::boolean))), %s,
                    now() - make_interval(secs => %s), now() - make_interval(secs => %s),
                    now() - make_interval(secs => %s)
                returning id""",
            job_type,
            status,
            _json(priority),
            promoted,
            repository,
            created,
            started,
            ended,
        )

    def end(self, priority: str | None = "high", status: str = "completed") -> UUID:
        """A job that ends now."""
        return self.add(priority, status=status, created=30, started=20, ended=0)


def _json(value: object) -> str | None:
    if value is None:
        return None
    return f'"{value}"' if isinstance(value, str) else str(value)


class Reader:
    """A daemon as far as counting jobs goes."""

    def __init__(self, world: World, limit: int = 1000) -> None:
        self.world = world
        self.limit = limit
        self.daemon_id = uuid4()
        self.counted_page: int | None = None
        self.jobs: list[tuple[str, str]] = []
        self.inversions = 0
        self.last: dict[str, Any] = {}

    def ask(self) -> dict[str, Any]:
        """One call whose answer may still get lost."""
        answer: dict[str, Any] = self.world.call(
            "poll_background_jobs", self.daemon_id, self.counted_page, self.limit, 0.0
        )
        return answer

    def count(self, answer: dict[str, Any]) -> None:
        self.last, self.counted_page = answer, answer["page"]
        self.inversions += answer["inversions"]["count"]
        for group in answer["finished"]:
            self.jobs += [(group["priority"], group["status"])] * group["jobs"]

    def poll(self) -> Reader:
        """Until there is no more."""
        self.count(self.ask())
        while self.last["more"]:
            self.count(self.ask())
        return self

    @property
    def queued(self) -> list[dict[str, Any]]:
        """What waits, by priority, as the last poll told it."""
        assert self.last["queue"]["whole"]
        queued: list[dict[str, Any]] = self.last["queue"]["jobs"]
        return queued


@pytest.fixture
def jobs(world: World) -> Jobs:
    return Jobs(world)


def test_what_ended_before_anybody_looked_is_history(world: World, jobs: Jobs) -> None:
    jobs.add("high", status="completed", created=3, started=2, ended=1)
    assert Reader(world).poll().jobs == []


def test_each_job_is_counted_once_with_its_times(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    jobs.end("high")
    jobs.end("low", "failed")
    jobs.add("medium", status="cancelled", created=9, ended=0)
    reader.poll()
    reader.poll()
    assert sorted(reader.jobs) == [("high", "completed"), ("low", "failed"), ("medium", "cancelled")]


def test_the_times_are_wait_run_and_total(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    jobs.end("high")
    (group,) = reader.ask()["finished"]
    assert (group["wait_seconds"], group["run_seconds"], group["total_seconds"]) == ([10], [20], [30])


def test_pages_divide_jobs_without_losing_or_repeating_any(world: World, jobs: Jobs) -> None:
    reader = Reader(world, limit=7).poll()
    with world.connection.transaction():  # all with the same time, to the microsecond
        for _ in range(40):
            jobs.end("medium")
    reader.poll()
    assert len(reader.jobs) == 40
    assert reader.poll().jobs == [("medium", "completed")] * 40


@pytest.mark.parametrize("priority", PRIORITIES)
def test_a_job_has_the_priority_it_was_queued_with_else_its_repository_s(
    world: World, jobs: Jobs, priority: str
) -> None:
    repository = world.tracked(priority=priority)
    other = next(each for each in PRIORITIES if each != priority)
    for queued_with, expected in (
        (other, other),
        (SCORES[other], other),
        (float(SCORES[other]), other),
        (str(SCORES[other]), other),
        (None, priority),
        ("urgent", priority),
        (-1, priority),
    ):
        jobs.add(queued_with, repository=repository)
        (waiting,) = Reader(world).poll().queued
        assert (waiting["priority"], waiting["jobs"]) == (expected, 1), queued_with
        world.execute("delete from background_jobs")


def test_a_job_of_nobody_is_medium(world: World, jobs: Jobs) -> None:
    jobs.add()
    jobs.add(repository=world.repository())
    (waiting,) = Reader(world).poll().queued
    assert (waiting["priority"], waiting["jobs"]) == ("medium", 2)
    assert 100 <= waiting["oldest_seconds"] < 200


def test_payloads_of_any_shape_are_read(world: World, jobs: Jobs) -> None:
    for payload in ("null", "[]", '"x"', '{"priority": {}}', '{"priority": []}', '{"priority": 1e400}'):
        world.execute("insert into background_jobs (payload) values (%s)", payload)
    (waiting,) = Reader(world).poll().queued
    assert (waiting["priority"], waiting["jobs"]) == ("medium", 6)


NONSENSE = [
    '{"priority": "1.' + "0" * 16_384 + '"}',
    '{"priority": 1.' + "0" * 16_380 + "}",
    '{"priority": "' + "9" * 1_000_000 + '"}',
]
NOT_JSONB = [r'{"priority": "\u0000"}', '{"priority": 1e200000}', "[" * 3_000 + "]" * 3_000]


@pytest.mark.parametrize("type_", ["json", "jsonb"])
def test_the_nonsense_of_a_job_is_that_job_s(world: World, jobs: Jobs, type_: str) -> None:
    world.execute(
        f"""alter table background_jobs alter column payload drop default,
            alter column payload type {type_} using payload::{type_}"""
    )
    apply_migrations(world.connection)
    reader = Reader(world).poll()
    payloads = NONSENSE + (NOT_JSONB if type_ == "json" else [])
    for payload in payloads:
        world.execute(
            "insert into background_jobs (payload, created_at) values (%s, now() - interval '90 s')", payload
        )
        world.execute(
            """insert into background_jobs (payload, status, created_at, started_at, completed_at)
               values (%s, 'completed', now() - interval '30 s', now() - interval '20 s', now())""",
            payload,
        )
    jobs.add("high", status="completed", created=100, started=90, ended=0)
    reader.poll()
    assert {each["priority"]: each["jobs"] for each in reader.queued} == {"medium": len(payloads)}
    assert sorted(reader.jobs) == [("high", "completed"), *[("medium", "completed")] * len(payloads)]


def test_times_without_end_are_told_of_by_nobody(world: World) -> None:
    reader = Reader(world).poll()
    world.execute(
        """insert into background_jobs (status, created_at, started_at, completed_at)
           values ('completed', '-infinity', '-infinity', now()), ('queued', '-infinity', null, null),
               ('queued', 'infinity', null, null), ('completed', now(), 'infinity', now())"""
    )
    (group,) = reader.ask()["finished"]
    assert (group["jobs"], group["wait_seconds"]) == (2, [])
    (waiting,) = reader.poll().queued
    assert (waiting["jobs"], waiting["oldest_seconds"]) == (2, 0)


def test_each_repository_is_looked_up_once_a_poll(world: World) -> None:
    """However many jobs it has."""
    world.execute(
        """with r as (insert into repositories select from generate_series(1, 3) returning id),
               t as (insert into tracked_repositories (repository_id, priority) select id, 'low' from r)
           insert into background_jobs (repository_id) select r.id from r, generate_series(1, 500)"""
    )
    world.execute("vacuum analyze tracked_repositories")
    with world.connection.transaction():
        looked_up = """select idx_scan + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables
                       where relname = 'tracked_repositories'"""
        before = world.value(looked_up)
        reader = Reader(world).poll()
        assert world.value(looked_up) - before <= 20
    assert [(each["priority"], each["jobs"]) for each in reader.queued] == [("low", 1500)]


def test_a_long_queue_is_counted_slice_by_slice(world: World, jobs: Jobs) -> None:
    world.execute(
        """insert into background_jobs (payload, created_at)
           select jsonb_build_object('priority', case when n > 11000 then 'high' else 'low' end),
               now() - make_interval(secs => 6000 - n / 10)
           from generate_series(1, 12000) n"""
    )

    def described(cursor: str) -> dict[str, Any]:
        return world.value("select priorityd.describe_queue(%s::text::priorityd.job_cursor)", cursor)

    cursor = world.value("select priorityd.walk_queue(null, 0)::text")
    seen = []
    for _ in range(4):
        found = described(cursor)
        seen.append((found["whole"], {each["priority"]: each["jobs"] for each in found["jobs"]}))
        cursor = world.value("select priorityd.walk_queue(%s::text::priorityd.job_cursor, 0)::text", cursor)
    assert seen == [
        (False, {"low": 5000}),
        (False, {"low": 10_000}),
        (True, {"low": 11_000, "high": 1000}),
        (True, {"low": 11_000, "high": 1000}),  # while the next walk is under way
    ]
    jobs.add("medium", created=7000)
    found = described(cursor)
    assert found["age_seconds"] >= 0
    assert [each["priority"] for each in found["jobs"]] == ["high", "low"], "as of counted_at"


def test_a_job_that_is_queued_behind_a_long_queue_is_found_to_be_overtaken(world: World, jobs: Jobs) -> None:
    world.execute(
        """insert into background_jobs (payload, created_at)
           select '{"priority": "low"}', now() - interval '1 h' from generate_series(1, 12000)"""
    )
    jobs.add("high", created=60)
    jobs.add("high", created=61)
    jobs.add("medium", status="processing", created=30, started=10)
    assert inversions(world)["count"] == 1


def test_types_without_end_are_counted_all_the_same(world: World) -> None:
    world.execute("insert into background_jobs (type) select 'type ' || n from generate_series(1, 3000) n")
    (waiting,) = Reader(world).poll().queued
    assert waiting["jobs"] == 3000
    assert world.value("select jsonb_array_length(queue_counted) <= 101 from priorityd.job_cursor")


def test_a_late_commit_is_counted_although_others_ended_after_it(database: Database, jobs: Jobs) -> None:
    """The row's time is old by the time it can be seen."""
    slow = session(database, autocommit=False)
    reader = Reader(session(database)).poll()
    Jobs(slow).end("high")
    jobs.end("low")
    reader.poll()
    jobs.end("medium")
    assert reader.poll().jobs == [], "nothing after the open transaction's first write is settled"
    slow.connection.commit()
    reader.poll()
    assert sorted(priority for priority, _ in reader.jobs) == ["high", "low", "medium"]


@pytest.mark.parametrize("role", ["service_role", None])
def test_a_transaction_that_writes_late_is_waited_for_by_whoever_polls(
    database: Database, jobs: Jobs, role: str | None
) -> None:
    """Until it writes it has no transaction id; what it writes then is the time at which it began."""
    reader = Reader(World(database.connect(role))).poll()
    worker = session(database, autocommit=False)
    worker.execute("select count(*) from background_jobs")
    jobs.end("low")
    assert reader.poll().jobs == []
    Jobs(worker).end("high")
    assert reader.poll().jobs == []
    worker.connection.commit()
    assert sorted(priority for priority, _ in reader.poll().jobs) == ["high", "low"]


def test_what_holds_the_count_back_is_named(database: Database, jobs: Jobs) -> None:
    reader = Reader(session(database)).poll()
    assert reader.last["held_back_by"] is None
    worker = session(database, autocommit=False)
    worker.execute("select 1")
    assert reader.poll().last["held_back_by"] is None, "it has just begun"
    held = reader.poll().last["held_back_by"]
    assert (held["pid"], held["writes"]) == (worker.pid, False)
    assert held["seconds"] > 0
    Jobs(worker).end()
    assert reader.poll().last["held_back_by"]["writes"] is True
    worker.connection.commit()
    assert reader.poll().last["held_back_by"] is None


@pytest.mark.parametrize(("writes", "longest"), [(False, "5 minutes"), (True, "1 hour")])
def test_a_forgotten_transaction_is_waited_for_no_longer_than(
    database: Database, jobs: Jobs, writes: bool, longest: str
) -> None:
    reader = Reader(session(database)).poll()
    forgotten = session(database, autocommit=False)
    if writes:
        Jobs(forgotten).add("high")
    else:
        forgotten.execute("select count(*) from background_jobs")
    jobs.end("low")
    assert reader.poll().jobs == []
    age = """update priorityd.job_cursor set transactions = (
                 select jsonb_object_agg(key, value || jsonb_build_object('first_seen', now() - %s::interval))
                 from jsonb_each(transactions))"""
    jobs.world.execute(f"{age} where only_row", f"{longest} -10 s")
    assert reader.poll().jobs == []
    jobs.world.execute(f"{age} where only_row", f"{longest} 10 s")
    assert reader.poll().jobs == [("low", "completed")]


def test_transactions_of_other_databases_hold_nothing_up(
    server: Server, database: Database, jobs: Jobs
) -> None:
    reader = Reader(session(database)).poll()
    with server.database() as other:
        forgotten = session(other, autocommit=False)
        forgotten.execute("create table written ()")
        jobs.end()
        assert reader.poll().jobs == [("high", "completed")]


def test_a_prepared_transaction_is_waited_for_as_one_that_was_open_before(world: World) -> None:
    """Looked at with what an earlier look has met: whatever became prepared may have begun long before."""
    earlier = {
        "3/7 of 42": {
            "pid": 42,
            "since": "2025-01-03T00:00:00+00:00",
            "first_seen": "2025-01-03T00:00:00+00:00",
        }
    }
    world.execute("create view prepared as select '17'::xid as transaction, current_database() as database")
    body = world.value("select prosrc from pg_proc where proname = 'look_at_transactions'")
    found = world.value(
        "select ("
        + body.replace("pg_prepared_xacts", "prepared")
        .replace("p_before", "%s::jsonb")
        .replace("p_looked_at", "'2025-01-04Z'::timestamptz")
        + ")",
        *[json.dumps(earlier)] * 2,
    )
    assert found["prepared 17"]["since"].startswith("2025-01-03")
    assert found["prepared 17"]["pid"] is None


def test_a_restart_goes_on_where_the_last_daemon_was(world: World, jobs: Jobs) -> None:
    first = Reader(world).poll()
    jobs.end("high")
    first.poll()
    jobs.end("low")  # while no daemon runs
    second = Reader(world).poll()
    assert first.jobs == [("high", "completed")]
    assert second.jobs == [("low", "completed")]


def test_a_page_whose_answer_was_lost_comes_again(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    jobs.end()
    lost = reader.ask()
    assert [group["jobs"] for group in lost["finished"]] == [1]
    jobs.end()
    again = reader.ask()
    assert (again["page"], again["finished"]) == (lost["page"], lost["finished"])
    reader.count(again)
    reader.poll()
    assert len(reader.jobs) == 2


def test_two_daemons_that_both_believe_to_lead_count_each_job_once(database: Database, jobs: Jobs) -> None:
    readers = [Reader(session(database), limit=3) for _ in range(2)]
    chance = random.Random(1)
    readers[0].poll()
    for _ in range(60):
        jobs.end()
        reader = chance.choice(readers)
        answer = reader.ask()
        reader.count(reader.ask() if chance.random() < 0.3 else answer)
    for reader in readers:
        reader.poll()
    assert sum(len(reader.jobs) for reader in readers) == 60


def test_an_attempt_that_is_tried_again_counts_when_it_ends(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    job = jobs.add("high", status="failed", created=30, started=20, ended=0)
    world.execute("update background_jobs set status = 'processing', started_at = now() where id = %s", job)
    assert reader.poll().jobs == []
    world.execute("update background_jobs set status = 'completed', completed_at = now() where id = %s", job)
    assert reader.poll().jobs == [("high", "completed")]


# Inversions.


def inversions(world: World, since: float = 1000) -> dict[str, Any]:
    return world.value(
        """select priorityd.find_job_inversions(
               now() - make_interval(secs => %s), now(), (priorityd.walk_queue(null, 60)).queue_counted
           )""",
        since,
    )


def test_a_job_that_starts_before_an_earlier_one_of_higher_priority_is_an_inversion(
    world: World, jobs: Jobs
) -> None:
    waiting = jobs.add("high", created=90)
    overtaking = jobs.add("low", status="processing", created=80, started=50)
    found = inversions(world)
    assert found["count"] == 1
    (pair,) = found["sample"]
    assert (pair["job_id"], pair["waiting_job_id"]) == (str(overtaking), str(waiting))
    assert (pair["priority"], pair["waiting_priority"]) == ("low", "high")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("select", ("acme/web", "acme/api")),
        ("update repositories set owner = null where name = 'web'", ("old/web", "acme/api")),
        ("drop table repositories cascade", ("old/web", None)),
        (
            """update repositories set owner = null, name = null;
            alter table tracked_repositories drop column repository_name""",
            (None, None),
        ),
    ],
    ids=["repositories", "some by their rows", "no table repositories", "no names"],
)
def test_both_jobs_of_an_inversion_are_told_with_the_names_of_their_repositories(
    world: World, jobs: Jobs, change: str, names: tuple[str | None, str | None]
) -> None:
    web = world.tracked(organization_name="old", repository_name="web")
    api = world.tracked()
    for repository, name in ((web, "web"), (api, "api")):
        world.execute("update repositories set owner = 'acme', name = %s where id = %s", name, repository)
    waiting = jobs.add("high", created=90, repository=api)
    overtaking = jobs.add("low", status="processing", created=80, started=50, repository=web)
    world.connection.execute(change.encode())
    (pair,) = inversions(world)["sample"]
    pair.pop("started_at")
    assert pair == {
        "job_id": str(overtaking),
        "repository_id": str(web),
        "name": names[0],
        "priority": "low",
        "waiting_job_id": str(waiting),
        "waiting_repository_id": str(api),
        "waiting_name": names[1],
        "waiting_priority": "high",
    }


def test_jobs_of_no_repository_invert_as_well(world: World, jobs: Jobs) -> None:
    jobs.add("high", created=90)
    jobs.add("low", status="processing", created=80, started=50)
    (pair,) = inversions(world)["sample"]
    told = [pair[key] for key in ("repository_id", "name", "waiting_repository_id", "waiting_name")]
    assert told == [None] * 4


@pytest.mark.parametrize(
    "waiting",
    [
        {"created": 80},
        {"created": 80, "started": 49, "status": "processing"},
        {"created": 80, "ended": 49, "status": "cancelled"},
    ],
    ids=["waits", "started a second later", "cancelled a second later"],
)
def test_one_of_the_same_batch_can_be_overtaken(world: World, jobs: Jobs, waiting: dict[str, Any]) -> None:
    with world.connection.transaction():  # times are to the microsecond
        jobs.add("high", **waiting)
        jobs.add("low", status="processing", created=80, started=50)
    assert inversions(world)["count"] == 1


@pytest.mark.parametrize(
    ("waiting", "starting"),
    [
        ({"priority": "high", "created": 70}, {"priority": "low"}),  # created later
        ({"priority": "high", "created": 90, "started": 60, "status": "processing"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "started": 50, "status": "processing"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "started": 49.1, "status": "processing"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "status": "processing"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "ended": 20, "status": "completed"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "ended": 20, "status": "failed"}, {"priority": "low"}),
        ({"priority": "low", "created": 90}, {"priority": "low"}),
        ({"priority": "low", "created": 90}, {"priority": "high"}),
        ({"priority": "high", "created": 90, "ended": 60, "status": "cancelled"}, {"priority": "low"}),
    ],
    ids=[
        "created later",
        "started before",
        "started together",
        "started less than a second later",
        "at work without a time",
        "completed without a start",
        "failed without a start",
        "same",
        "lower",
        "cancelled before",
    ],
)
def test_is_no_inversion(world: World, jobs: Jobs, waiting: dict[str, Any], starting: dict[str, Any]) -> None:
    jobs.add(**waiting)
    jobs.add(**starting, status="processing", created=80, started=50)
    assert inversions(world)["count"] == 0


def test_one_that_has_had_its_turn_was_not_overtaken(world: World, jobs: Jobs) -> None:
    job = jobs.add("high", status="failed", created=90, started=85, ended=60)
    jobs.add("low", status="processing", created=80, started=50)
    world.execute(
        """update background_jobs set status = 'processing', started_at = now() - interval '10 s'
           where id = %s""",
        job,
    )
    assert inversions(world)["count"] == 0


def test_a_priority_that_rose_while_a_job_waited_counts_from_then_on(world: World, jobs: Jobs) -> None:
    repository = world.tracked()
    jobs.add(repository=repository, created=90)
    jobs.add("medium", status="processing", created=80, started=50)
    world.add(repository)
    world.sync(repository)
    assert inversions(world)["count"] == 0
    jobs.add("medium", status="processing", created=0, started=0)
    assert inversions(world)["count"] == 1


def released_high_job(world: World) -> UUID:
    """An ordered job that was sent just now, and of which nothing has been heard."""
    repository = world.tracked()
    world.add(repository)
    world.sync(repository)
    world.call("queue_repository_jobs", json.dumps([{"repository_id": str(repository)}]), "reviews")
    ((job,),) = world.execute(
        "select job_id from priorityd.ordered_jobs where released_at is null"
    ).fetchall()
    world.call("release_ordered_jobs", uuid4(), 10)
    world.call("mark_jobs_sent", [job])
    return job


def test_a_released_job_waits_for_its_start_for_a_minute(world: World, jobs: Jobs) -> None:
    job = released_high_job(world)
    jobs.add("low", status="processing", created=0, started=0, job_type="reviews")
    (pair,) = inversions(world)["sample"]
    assert UUID(pair["waiting_job_id"]) == job
    world.execute("update priorityd.ordered_jobs set sent_at = sent_at - interval '61 s'")
    assert inversions(world)["count"] == 0, "it may be at work, or lost"


def test_a_job_of_which_nothing_is_heard_hides_none_that_waits(world: World, jobs: Jobs) -> None:
    released_high_job(world)
    world.execute("update priorityd.ordered_jobs set sent_at = sent_at - interval '61 s'")
    waiting = jobs.add("high", created=0, job_type="reviews")
    jobs.add("low", status="processing", created=0, started=0, job_type="reviews")
    (pair,) = inversions(world)["sample"]
    assert UUID(pair["waiting_job_id"]) == waiting


def test_starts_that_are_never_written_down_say_nothing(world: World) -> None:
    """Of an application that only says how its jobs ended."""
    high, low = world.tracked(), world.tracked()
    world.add(high)
    world.sync(high)
    reader = Reader(world).poll()
    for _ in range(3):
        jobs = [{"repository_id": str(each)} for each in (high, low)]
        world.call("queue_repository_jobs", json.dumps(jobs), "reviews")
        for job in reversed(world.call("release_ordered_jobs", uuid4(), 10)["jobs"]):
            world.call("mark_jobs_sent", [job["job_id"]])
            assert reader.poll().inversions == 0
            world.execute(
                "update background_jobs set status = 'completed', completed_at = now() where id = %s",
                job["job_id"],
            )
    assert reader.poll().inversions == 0
    assert len(reader.jobs) == 6


def test_a_start_at_no_time_that_there_is_stops_no_poll(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    world.execute(
        """insert into background_jobs (status, payload, created_at, started_at)
           select 'processing', '{"priority": 100}', now() - interval '90 s', t::timestamptz
           from unnest('{294276-12-31 23:59:59Z,infinity,-infinity,4714-11-24 00:00:00Z BC}'::text[]) t"""
    )
    jobs.add("low", status="processing", created=80, started=0)
    assert reader.poll().inversions == 1


def test_clocks_of_workers_that_differ_from_the_database_s_invert_nothing(world: World, jobs: Jobs) -> None:
    """Starts are compared with starts: by whatever clock, the first was the first."""
    for ahead in (-30, 0, 30):
        world.execute("delete from background_jobs")
        jobs.add("high", status="processing", created=90, started=60 - ahead)
        jobs.add("low", status="processing", created=80, started=50 - ahead)
        assert inversions(world)["count"] == 0
        jobs.add("low", status="processing", created=80, started=62 - ahead)
        assert inversions(world)["count"] == 1


def test_finds_exactly_what_comparing_all_pairs_finds(world: World, jobs: Jobs) -> None:
    chance = random.Random(7)
    with world.connection.transaction():  # many were created at the same time
        for _ in range(300):
            created = float(chance.randint(10, 200))
            status = chance.choice(["queued", "processing", "completed", "failed", "cancelled"])
            started = None if status in ("queued", "cancelled") else chance.uniform(5, created)
            ended = (
                chance.uniform(1, started or created)
                if status in ("completed", "failed", "cancelled")
                else None
            )
            jobs.add(
                chance.choice(["high", "medium", "low", None]),
                status=status,
                created=created,
                started=started,
                ended=ended,
            )
    by_hand = world.value(
        """with j as (
               select *, coalesce(array_position('{low,medium,high}', payload ->> 'priority'), 2) as rank,
                   case
                       when started_at is not null then started_at when status = 'queued' then 'infinity'
                       when status = 'cancelled' then completed_at
                   end as waited_until
               from background_jobs
           )
           select count(*) from j l
           where l.started_at > now() - interval '300 s' and exists (
               select from j h
               where h.rank > l.rank and h.created_at <= l.created_at
                   and h.waited_until >= l.started_at + interval '1 s'
           )"""
    )
    assert by_hand > 20
    found = inversions(world, 300)
    assert found["count"] == by_hand
    assert len(found["sample"]) == 5


def test_each_inversion_is_counted_once_over_polls_and_daemons(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    jobs.add("high", created=90)
    jobs.add("low", status="processing", created=80, started=0)
    assert reader.poll().inversions == 1
    assert reader.poll().inversions == 1
    jobs.add("medium", status="processing", created=70, started=0)
    other = Reader(world).poll()
    assert (reader.poll().inversions, other.inversions) == (1, 1)


# When the table is not as expected.


def test_without_the_table_it_is_off_and_comes_on_when_the_table_does(empty_database: Database) -> None:
    world = session(empty_database)
    world.connection.execute(schema_sql("roles"))
    world.connection.execute(schema_sql("application"))
    definition = schema_sql("application")
    apply_migrations(world.connection)
    world.execute("drop table background_jobs")
    off = Reader(world).ask()
    assert off == {"available": False, "reason": "there is no table background_jobs"}

    world.connection.execute(definition)
    reader = Reader(world).poll()
    Jobs(world).end()
    assert len(reader.poll().jobs) == 1
    apply_migrations(world.connection)
    assert (
        world.value("select count(*) from pg_indexes where indexname like 'idx\\_background\\_jobs\\_%%'")
        == 3
    )


def test_a_promoted_job_overtakes_nobody_and_a_type_is_overtaken_by_no_other(
    world: World, jobs: Jobs
) -> None:
    reader = Reader(world).poll()
    jobs.add("high", created=50, job_type="reviews")
    for fields in ({"promoted": True, "job_type": "reviews"}, {"job_type": "comments"}):
        jobs.add("low", status="completed", created=40, started=0, ended=0, **fields)
    assert reader.poll().inversions == 0
    inverted = jobs.add("low", status="completed", created=40, started=0, ended=0, job_type="reviews")
    reader.poll()
    assert reader.inversions == 1
    found = inversions(world, 60)
    assert [UUID(pair["job_id"]) for pair in found["sample"]] == [inverted]


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
    assert answer["available"] is False
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
        assert Reader(world).ask() == {"available": False, "reason": reason}
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


# Plans.


@pytest.mark.million
def test_a_million_jobs_of_history_cost_a_poll_nothing(world: World) -> None:
    """In pages read: what a poll reads is what ended and what waits, not what the table holds."""
    world.execute("set synchronous_commit = off; set work_mem = '64MB'")
    world.execute(
        """insert into background_jobs (status, created_at, started_at, completed_at)
           select 'completed', t, t + interval '2 s', t + interval '5 s'
           from (
               select now() - interval '1 h' - n * interval '1 s' from generate_series(1, 1000000) n
           ) x (t)"""
    )
    world.execute("vacuum analyze background_jobs")

    def pages_read(reader: Reader) -> int:
        answer = world.value(
            f"""explain (analyze, buffers, format json)
                select poll_background_jobs(
                    '{reader.daemon_id}', {reader.counted_page or "null"}, 1000, 0.0)"""
        )
        return answer[0]["Plan"]["Shared Hit Blocks"] + answer[0]["Plan"]["Shared Read Blocks"]

    warm = Reader(world).poll()  # the first call of a session reads the catalog
    pages_read(Reader(world))
    assert pages_read(Reader(world)) < 200
    # Five seconds of 100 jobs a second.
    world.execute(
        """insert into background_jobs (status, created_at, started_at, completed_at, payload)
           select 'completed', now() - interval '9 s', now() - n * interval '5 ms', now(), '{"priority": 100}'
           from generate_series(1, 500) n"""
    )
    Reader(world).ask()
    busy = pages_read(Reader(world))
    assert busy < 500 * 15, "a few look-ups for each job"
    assert world.value(
        "select seq_tup_read < 1100000 from pg_stat_user_tables where relname = 'background_jobs'"
    )
    assert warm.jobs == []


def test_each_question_is_answered_from_its_index(world: World, jobs: Jobs) -> None:
    jobs.add("high")
    jobs.end()

    def scans() -> tuple[int, int]:
        row = world.execute(
            "select seq_tup_read, idx_scan from pg_stat_xact_user_tables where relname = 'background_jobs'"
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    with world.connection.transaction():
        before = scans()
        Reader(world).ask()
        assert scans()[0] == before[0]
        assert scans()[1] >= before[1] + 3, "the page, its jobs, the queue"
