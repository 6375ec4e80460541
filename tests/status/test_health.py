"""The one model of health: what each fault makes of the headline, the problems and readiness."""

from __future__ import annotations

from dataclasses import replace

import pytest

from priorityd.core.status.facts import (
    CountFacts,
    DatabaseFacts,
    Facts,
    Holder,
    InngestFacts,
    JobFacts,
    LeaderFacts,
    QueueFacts,
    RepairFacts,
    StreamFacts,
)
from priorityd.core.status.health import STARTING, judge
from priorityd.core.status.problems import PROBLEMS, SILENT_SECONDS, UNHEARD_SECONDS, find_problems

WELL = Facts(counts=CountFacts(1204))
SILENT = DatabaseFacts(silent_seconds=42, failure="no answer in time")
UNLED = LeaderFacts(unled_seconds=31)
DEAF = StreamFacts(unheard_seconds=40, failure="closed: 1006")


def test_where_all_is_well_the_headline_tells_of_the_priorities() -> None:
    health = judge(WELL)
    assert health.headline == health.priorities == "All 1,204 workspace repositories are high."
    assert (health.problems, health.ready) == ((), True)
    assert health.line == "ready; All 1,204 workspace repositories are high."


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (None, "The repositories have not been counted yet."),
        (CountFacts(0), "No repository is in a workspace."),
        (CountFacts(1), "The only workspace repository is high."),
        (CountFacts(1204, inversions=3), "3 of 1,204 workspace repositories are not high."),
    ],
)
def test_the_priorities_in_one_sentence(counts: CountFacts | None, text: str) -> None:
    assert judge(Facts(counts=counts)).priorities == text


def test_old_knowledge_is_no_knowledge() -> None:
    health = judge(replace(WELL, database=SILENT))
    assert health.headline == "The database has not answered for 42 s: no answer in time."
    assert health.not_ready_because == ("the database has not answered for 42 s",)
    assert health.priorities == "All 1,204 workspace repositories are high.", "said beside it, with its age"


def test_a_fault_is_told_of_within_half_a_minute_and_not_before() -> None:
    assert max(SILENT_SECONDS, UNHEARD_SECONDS) < 30
    well = replace(
        WELL,
        database=DatabaseFacts(silent_seconds=SILENT_SECONDS - 0.1),
        stream=StreamFacts(unheard_seconds=UNHEARD_SECONDS - 0.1),
    )
    assert judge(well) == judge(WELL)


def test_a_database_that_answers_but_refuses_is_said_to_be_unusable() -> None:
    refusing = DatabaseFacts(silent_seconds=30, failure="read-only transaction (25006)", unanswered=False)
    assert judge(replace(WELL, database=refusing)).headline == (
        "The database has not been usable for 30 s: read-only transaction (25006)."
    )


def test_a_deaf_stream_is_a_warning_while_sweeps_find_the_changes() -> None:
    health = judge(replace(WELL, stream=DEAF))
    assert (
        health.headline == "No changes come through the stream; sweeps find them within 10 s: closed: 1006."
    )
    assert health.ready


def test_while_the_database_is_silent_nothing_is_said_of_the_stream() -> None:
    problems = judge(replace(WELL, database=SILENT, stream=DEAF)).problems
    assert [problem.name for problem in problems] == ["database_silent"]


@pytest.mark.parametrize(
    "repair", [RepairFacts(overdue_seconds=30), RepairFacts(sweeps=False)], ids=["failing", "never"]
)
def test_a_deaf_stream_and_no_sweeps_are_not_ready(repair: RepairFacts) -> None:
    health = judge(replace(WELL, stream=DEAF, repair=repair))
    assert health.not_ready_because == ("no changes come through the stream, and no sweep has succeeded",)


def test_that_nobody_leads_is_the_headline_and_nothing_is_said_of_sweeps_that_find_changes() -> None:
    health = judge(replace(WELL, leader=UNLED))
    assert health.headline == "No daemon does the timer work: the lease has not been renewed for 31 s."
    assert health.ready, "changes are heard"
    deaf = judge(replace(WELL, leader=UNLED, stream=DEAF))
    assert deaf.not_ready_because == ("no changes come through the stream, and no sweep has succeeded",)
    assert [problem.text for problem in deaf.problems][1] == (
        "No changes come through the stream, and no daemon sweeps: closed: 1006."
    )


def test_while_the_database_is_silent_nothing_is_said_of_who_leads() -> None:
    problems = judge(replace(WELL, database=SILENT, leader=UNLED)).problems
    assert [problem.name for problem in problems] == ["database_silent"]


def test_never_having_heard_anything_is_not_hearing() -> None:
    never = StreamFacts(state="joining", heard=False, unheard_seconds=3)
    assert not judge(replace(WELL, stream=never, repair=RepairFacts(sweeps=False))).ready
    assert judge(replace(WELL, stream=never)).ready


def test_before_the_first_resync_it_is_starting() -> None:
    health = judge(Facts(repair=RepairFacts(started=False, sweeps=False)))
    assert (health.headline, health.ready) == (STARTING, False)
    silent = judge(Facts(repair=RepairFacts(started=False, sweeps=False), database=SILENT))
    assert "has not answered" in silent.headline


def test_the_headline_is_the_worst_problem() -> None:
    facts = replace(
        WELL,
        counts=CountFacts(28, untracked=1),
        queue=QueueFacts(parked=28, refused_because="no (23514)"),
        jobs=JobFacts(inversions=1),
    )
    health = judge(facts)
    assert health.headline == "The priority of 28 repositories can't be written: no (23514)."
    assert [problem.severity for problem in health.problems] == ["critical", "warning", "warning"]


@pytest.mark.parametrize(
    ("facts", "name", "text"),
    [
        (
            Facts(counts=CountFacts(5, inversions=1, inverted_seconds=10)),
            "not_high",
            "1 of 5 workspace repositories is not high.",
        ),
        (
            Facts(queue=QueueFacts(parked=2)),
            "rows_refused",
            "The priority of 2 repositories can't be written.",
        ),
        (
            Facts(queue=QueueFacts(parked=1, nameless=2, refused_because="no (23514)")),
            "rows_refused",
            "of 1 repository and 2 tracked rows without a repository can't be written: no (23514).",
        ),
        (
            Facts(queue=QueueFacts(nameless=1)),
            "rows_refused",
            "The priority of 1 tracked row without a repository can't be written.",
        ),
        (
            Facts(queue=QueueFacts(all_refused_because="frozen (P0001)")),
            "writes_refused",
            "No priority can be written: frozen (P0001).",
        ),
        (
            Facts(queue=QueueFacts(oldest_pending_seconds=31)),
            "change_waits",
            "A change has been waiting for 31 s.",
        ),
        (
            Facts(counts=CountFacts(5, untracked=1)),
            "untracked",
            "1 repository is in a workspace but not tracked.",
        ),
        (
            Facts(counts=CountFacts(5, age_seconds=400, overdue_seconds=70)),
            "counts_old",
            "last counted 7 min ago",
        ),
        (Facts(repair=RepairFacts(late_or_lost=4)), "changes_lost", "4 rows in the last hour"),
        (
            Facts(repair=RepairFacts(overdue_seconds=31, failure="no")),
            "sweeps_fail",
            "succeeded for 31 s: no.",
        ),
        (Facts(repair=RepairFacts(last_resync_failed=True)), "resync_failed", "last full resync failed"),
        (
            Facts(database=DatabaseFacts(clock_ahead_seconds=3600)),
            "clock_wrong",
            "60 min ahead of the database's",
        ),
        (Facts(database=DatabaseFacts(clock_ahead_seconds=-31)), "clock_wrong", "31 s behind the database's"),
        (
            Facts(inngest=InngestFacts(jobs_held_back_because="no answer in time")),
            "jobs_held_back",
            "No ordered job can be released: no answer in time.",
        ),
        (
            Facts(inngest=InngestFacts(announcing_failed_seconds=12, announcing_failed_because="refused")),
            "announcing_fails",
            "Inngest has accepted no announcement for 12 s: refused.",
        ),
        (Facts(inngest=InngestFacts(oldest_seconds=16)), "announcing_fails", "to be announced for 16 s"),
        (Facts(jobs=JobFacts(inversions=1)), "jobs_overtake", "1 job has overtaken one of a higher priority"),
        (Facts(jobs=JobFacts(oldest_seconds={"high": 7201})), "high_job_overdue", "queued for more than 2 h"),
        (Facts(jobs=JobFacts(oldest_seconds={"low": 86_401})), "job_overdue", "queued for more than 24 h"),
        (Facts(jobs=JobFacts(high_completed=94, high_failed=6)), "jobs_fail", "Only 94%"),
        (Facts(jobs=JobFacts(behind_seconds=600)), "jobs_behind", "in the last 10 min are not counted yet"),
        (
            Facts(jobs=JobFacts(behind_seconds=600, held_back_by=Holder(4711, 660))),
            "jobs_behind",
            "not counted yet: backend 4711 has had a transaction open for 11 min.",
        ),
        (
            Facts(jobs=JobFacts(behind_seconds=600, held_back_by=Holder(None, 660))),
            "jobs_behind",
            "a prepared transaction has been open for 11 min.",
        ),
        (Facts(jobs=JobFacts(off_because="it lacks indexes")), "job_telemetry_off", "Job telemetry is off"),
        (Facts(jobs=JobFacts(off_because="no table rights")), "job_telemetry_off", "Job telemetry is off"),
    ],
)
def test_each_problem_is_named(facts: Facts, name: str, text: str) -> None:
    (problem,) = find_problems(facts)
    assert (problem.name, problem.severity, problem.alert) == (name, *PROBLEMS[name])
    assert text in problem.text
    assert problem.text.endswith(".")


@pytest.mark.parametrize(
    "facts",
    [
        Facts(),
        Facts(counts=CountFacts(5, inversions=1, inverted_seconds=9)),
        Facts(database=DatabaseFacts(clock_ahead_seconds=29)),
        Facts(jobs=JobFacts(oldest_seconds={"high": 7199, "medium": 7201, "low": 86_399})),
        Facts(jobs=JobFacts(high_completed=95, high_failed=5)),
        Facts(queue=QueueFacts(oldest_pending_seconds=19), inngest=InngestFacts(oldest_seconds=14)),
        Facts(inngest=InngestFacts(announcing_failed_seconds=5, announcing_failed_because="refused")),
    ],
)
def test_what_is_as_it_should_be_is_no_problem(facts: Facts) -> None:
    assert find_problems(facts) == []
