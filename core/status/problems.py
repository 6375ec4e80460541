"""What is wrong, in words, derived from the facts; each problem with its severity and its alert.

Problems are for an operator who looks now. Which of them page someone, and after how long, is decided by the
alerts, which use the same list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

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

Severity: TypeAlias = Literal["critical", "warning"]

SILENT_SECONDS: Final = 20.0
"""How old the last answer of the database may get, which is called every 12 s or more often. Even where
Prometheus scrapes and evaluates its rules every 5 s, an alert fires within 30 s."""
UNHEARD_SECONDS: Final = 25.0
"""The same for the heartbeat row, which is written every 12 s: a single one may be lost."""
UNLED_SECONDS: Final = 20.0
"""Of two answers about the lease, 12 s apart, at least one shows that it was renewed."""
SWEEP_OVERDUE_SECONDS: Final = 20.0
PENDING_SECONDS: Final = 20.0
INVERTED_SECONDS: Final = 10.0
"""How long it takes until a sweep has repaired what no change named."""
COUNT_OVERDUE_SECONDS: Final = 60.0
"""Longer than the time-out of a count: a silent database is reported before that."""
CLOCK_SECONDS: Final = 30.0
"""The clock skew that Supabase tolerates in a key's times."""
HIGH_LIMIT_SECONDS: Final = 2 * 3600.0
"""Within this time jobs of workspace repositories should be done."""
LIMIT_SECONDS: Final = 24 * 3600.0
"""Within this time all others should be."""
LEAST_SUCCESS: Final = 0.95
"""Of the jobs of workspace repositories."""
JOBS_BEHIND_SECONDS: Final = 180.0
"""A quiet queue is read every two minutes."""
_ANNOUNCING_SECONDS: Final = 10.0
_OUTBOX_SECONDS: Final = 15.0

PROBLEMS: Final[dict[str, tuple[Severity, str | None]]] = {
    "database_silent": ("critical", "DatabaseSilent"),
    "sweeps_fail": ("critical", "SweepsFail"),
    "writes_refused": ("critical", "WritesRefused"),
    "nobody_leads": ("critical", "NobodyDoesTimerWork"),
    "not_high": ("critical", "PriorityInversion"),
    "rows_refused": ("critical", "RepositoriesParked"),
    "change_waits": ("critical", "ChangeWaitsTooLong"),
    "high_job_overdue": ("critical", "WorkspaceJobOverdue"),
    "changes_not_heard": ("warning", "ChangesNotHeard"),
    "clock_wrong": ("warning", "ClockWrong"),
    "counts_old": ("warning", "CountsOld"),
    "announcing_fails": ("warning", "OutboxStuck"),
    "jobs_held_back": ("warning", "JobReleasesHeldBack"),
    "changes_lost": ("warning", "ChangesAreLost"),
    "resync_failed": ("warning", "ResyncsFail"),
    "untracked": ("warning", "RepositoriesUntracked"),
    "jobs_behind": ("warning", "JobsNotCounted"),
    "job_overdue": ("warning", "TrackedJobOverdue"),
    "jobs_fail": ("warning", "WorkspaceJobsFail"),
    "jobs_lost": ("warning", "JobsLost"),
    "jobs_overtake": ("warning", "JobsOvertake"),
    "job_telemetry_off": ("warning", None),
}
"""Every problem by name, the worst first: its severity, and its alert, which has an entry in the runbook."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong: one sentence for an operator."""

    name: str
    severity: Severity
    text: str
    alert: str | None


def find_problems(facts: Facts) -> list[Problem]:
    """What is wrong, the worst first."""
    order = list(PROBLEMS)
    found = sorted(_find(facts), key=lambda each: order.index(each[0]))
    return [Problem(name, PROBLEMS[name][0], text, PROBLEMS[name][1]) for name, text in found]


def has_answered(database: DatabaseFacts) -> bool:
    """Whether the database has answered recently."""
    return database.silent_seconds < SILENT_SECONDS


def is_heard(stream: StreamFacts) -> bool:
    """Whether the daemon's own heartbeat row has come back recently."""
    return stream.unheard_seconds < UNHEARD_SECONDS


def is_led(leader: LeaderFacts) -> bool:
    """Whether a daemon has renewed the lease on timer work recently; one that dies is replaced sooner."""
    return leader.unled_seconds < UNLED_SECONDS


def silence(database: DatabaseFacts) -> str:
    """How long the database has not answered."""
    verb = "answered" if database.unanswered else "been usable"
    return f"the database has not {verb} for {_seconds(database.silent_seconds)}"


def counted(number: int, one: str, many: str) -> str:
    """`1 row is`, `2 rows are`: the number, its noun and its verb."""
    return f"{number:,} {one} is" if number == 1 else f"{number:,} {many} are"


def _find(facts: Facts) -> Iterator[tuple[str, str]]:
    yield from _of_database(facts.database)
    if has_answered(facts.database):
        # Otherwise the heartbeat row could not be written, and its absence says nothing about the stream.
        yield from _of_stream(facts)
        yield from _of_leader(facts.leader)
    yield from _of_repair(facts.repair, database_answers=has_answered(facts.database))
    yield from _of_queue(facts.queue)
    if facts.counts is not None:
        yield from _of_counts(facts.counts)
    yield from _of_inngest(facts.inngest)
    yield from _of_jobs(facts.jobs)


def _of_database(database: DatabaseFacts) -> Iterator[tuple[str, str]]:
    if not has_answered(database):
        yield "database_silent", _sentence(silence(database), database.failure)
    ahead = database.clock_ahead_seconds
    if ahead is not None and abs(ahead) > CLOCK_SECONDS:
        where = "ahead of" if ahead > 0 else "behind"
        yield "clock_wrong", f"This host's clock is {_seconds(abs(ahead))} {where} the database's."


def _of_stream(facts: Facts) -> Iterator[tuple[str, str]]:
    stream, repair = facts.stream, facts.repair
    if is_heard(stream):
        return
    if not repair.sweeps or repair.failure or repair.overdue_seconds >= SWEEP_OVERDUE_SECONDS:
        found = ", and sweeps fail"
    elif not is_led(facts.leader):
        found = ", and no daemon sweeps"
    else:
        found = f"; sweeps find them within {_seconds(repair.interval_seconds)}"
    yield "changes_not_heard", _sentence(f"no changes come through the stream{found}", stream.failure)


def _of_leader(leader: LeaderFacts) -> Iterator[tuple[str, str]]:
    if not is_led(leader):
        seconds = _seconds(leader.unled_seconds)
        yield "nobody_leads", f"No daemon does the timer work: the lease has not been renewed for {seconds}."


def _of_repair(repair: RepairFacts, *, database_answers: bool) -> Iterator[tuple[str, str]]:
    if repair.overdue_seconds >= SWEEP_OVERDUE_SECONDS and database_answers:
        text = f"no sweep has succeeded for {_seconds(repair.overdue_seconds)}"
        yield "sweeps_fail", _sentence(text, repair.failure)
    if repair.last_resync_failed:
        yield "resync_failed", "The last full resync failed."
    if repair.late_or_lost:
        rows = "1 row" if repair.late_or_lost == 1 else f"{repair.late_or_lost:,} rows"
        text = (
            f"Sweeps repaired {rows} in the last hour whose change the stream delivered late or not at all."
        )
        yield "changes_lost", text


def _of_queue(queue: QueueFacts) -> Iterator[tuple[str, str]]:
    if queue.all_refused_because:
        yield "writes_refused", _sentence("no priority can be written", queue.all_refused_because)
    if queue.parked or queue.nameless:
        yield (
            "rows_refused",
            _sentence(f"the priority of {_rows(queue)} can't be written", queue.refused_because),
        )
    if queue.oldest_pending_seconds > PENDING_SECONDS:
        yield "change_waits", f"A change has been waiting for {_seconds(queue.oldest_pending_seconds)}."


def _rows(queue: QueueFacts) -> str:
    parts = []
    if queue.parked:
        parts.append("1 repository" if queue.parked == 1 else f"{queue.parked:,} repositories")
    if queue.nameless:
        rows = "1 tracked row" if queue.nameless == 1 else f"{queue.nameless:,} tracked rows"
        parts.append(f"{rows} without a repository")
    return " and ".join(parts)


def _of_counts(counts: CountFacts) -> Iterator[tuple[str, str]]:
    if counts.inversions and counts.inverted_seconds >= INVERTED_SECONDS:
        yield "not_high", inversions_sentence(counts)
    if counts.overdue_seconds > COUNT_OVERDUE_SECONDS:
        yield "counts_old", f"The repositories were last counted {_seconds(counts.age_seconds)} ago."
    if counts.untracked:
        many = counted(counts.untracked, "repository", "repositories")
        yield "untracked", f"{many} in a workspace but not tracked."


def inversions_sentence(counts: CountFacts) -> str:
    """How many of the workspace repositories are not high."""
    total, wrong = counts.workspace_repositories, counts.inversions
    noun = "workspace repository" if total == 1 else "workspace repositories"
    return f"{wrong:,} of {total:,} {noun} {'is' if wrong == 1 else 'are'} not high."


def _of_inngest(inngest: InngestFacts) -> Iterator[tuple[str, str]]:
    if inngest.announcing_failed_because and inngest.announcing_failed_seconds >= _ANNOUNCING_SECONDS:
        text = f"Inngest has accepted no announcement for {_seconds(inngest.announcing_failed_seconds)}"
        yield "announcing_fails", _sentence(text, inngest.announcing_failed_because)
    elif inngest.oldest_seconds > _OUTBOX_SECONDS:
        text = f"A priority change has been waiting to be announced for {_seconds(inngest.oldest_seconds)}."
        yield "announcing_fails", text
    if inngest.jobs_held_back_because:
        text = "no ordered job can be released"
        yield "jobs_held_back", _sentence(text, inngest.jobs_held_back_because)


def _of_jobs(jobs: JobFacts) -> Iterator[tuple[str, str]]:
    if jobs.inversions:
        text = "1 job has" if jobs.inversions == 1 else f"{jobs.inversions:,} jobs have"
        yield "jobs_overtake", f"{text} overtaken one of a higher priority in the last hour."
    for priority, seconds in jobs.oldest_seconds.items():
        limit = HIGH_LIMIT_SECONDS if priority == "high" else LIMIT_SECONDS
        if seconds > limit:
            text = f"A job of priority {priority} has been queued for more than {limit / 3600:.0f} h."
            yield "high_job_overdue" if priority == "high" else "job_overdue", text
    ended = jobs.high_completed + jobs.high_failed
    if ended and jobs.high_completed / ended < LEAST_SUCCESS:
        yield "jobs_fail", f"Only {jobs.high_completed / ended:.0%} of the jobs of priority high succeeded."
    if jobs.lost:
        lost = counted(jobs.lost, "ordered job", "ordered jobs")
        yield "jobs_lost", f"{lost} lost: no report came within the lease."
    if jobs.behind_seconds > JOBS_BEHIND_SECONDS:
        text = f"jobs that ended in the last {_seconds(jobs.behind_seconds)} are not counted yet"
        yield "jobs_behind", _sentence(text, _held(jobs.held_back_by))
    if jobs.off_because:
        yield "job_telemetry_off", _sentence("job telemetry is off", jobs.off_because)


def _held(holder: Holder | None) -> str | None:
    if holder is None:
        return None
    who = (
        "a prepared transaction has been"
        if holder.pid is None
        else f"backend {holder.pid} has had a transaction"
    )
    return f"{who} open for {_seconds(holder.seconds)}"


def _sentence(text: str, cause: str | None) -> str:
    whole = f"{text}: {cause}" if cause else text
    return whole[:1].upper() + whole[1:].rstrip(".") + "."


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
