"""What is known about each subject, and how old it is: everything that a daemon's health is judged by.

Ages are in seconds of a monotonic clock. What has never been seen is as old as the daemon. The defaults are
those of a healthy daemon.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from priorityd.core.priorities import Priority


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """Whether Supabase's database works.

    `silent_seconds` is the age of the last good answer to the call made every few seconds, `failure` what
    came instead, `unanswered` whether that was no answer at all. `clock_ahead_seconds` is by how much this
    host's clock is ahead of the database's (negative: behind).
    """

    silent_seconds: float = 0.0
    failure: str | None = None
    unanswered: bool = True
    clock_ahead_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """Whether changes are heard.

    `heard`: a heartbeat row has come back; `unheard_seconds` is the age of the last one that did.
    """

    state: str = "live"
    heard: bool = True
    unheard_seconds: float = 0.0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class RepairFacts:
    """The search for wrong rows that no change named.

    `started`: the first full resync is done. `sweeps`: a sweep has succeeded, or another daemon is the
    leader. `overdue_seconds` is how long the current sweep has been failing or hanging. `late_or_lost` are
    rows of the last hour whose change the stream should have delivered and did not.
    """

    started: bool = True
    sweeps: bool = True
    overdue_seconds: float = 0.0
    failure: str | None = None
    interval_seconds: float = 10.0
    last_resync_failed: bool = False
    late_or_lost: int = 0


@dataclass(frozen=True, slots=True)
class LeaderFacts:
    """Whether a daemon does the timer work: as of the last answer, none had renewed the lease for
    `unled_seconds`."""

    unled_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """Repositories that wait to be synced, and rows that can't be written, with the reason for one of them.

    `parked` are repositories, `nameless` refused rows without one. `all_refused_because` is why no row at all
    can be written: then they wait, and none are parked.
    """

    oldest_pending_seconds: float = 0.0
    parked: int = 0
    nameless: int = 0
    refused_because: str | None = None
    all_refused_because: str | None = None


@dataclass(frozen=True, slots=True)
class CountFacts:
    """The repositories as counted `age_seconds` ago; `overdue_seconds`: how late the next count is.

    `inverted_seconds` is for how long every count has found inversions: a single count may have caught a
    change half-way. No number relies on the rows' own flags.
    """

    workspace_repositories: int
    inversions: int = 0
    inverted_seconds: float = 0.0
    untracked: int = 0
    age_seconds: float = 0.0
    overdue_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class InngestFacts:
    """Whether Inngest accepts what is sent; `…_because` is None while it does.

    `oldest_seconds` is how long the oldest change has waited to be announced.
    """

    announcing_failed_seconds: float = 0.0
    announcing_failed_because: str | None = None
    oldest_seconds: float = 0.0
    jobs_held_back_because: str | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """An old transaction that others wait for: its backend (None if it is prepared), and its age."""

    pid: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The application's jobs. `lost` are ordered ones without a report within their lease.

    `off_because` is why they can't be counted; None while they can, or if the application has no such
    table. `behind_seconds` is how far the count of ended jobs lags behind, `held_back_by` what it waits for.
    """

    off_because: str | None = None
    behind_seconds: float = 0.0
    held_back_by: Holder | None = None
    inversions: int = 0
    high_completed: int = 0
    high_failed: int = 0
    oldest_seconds: dict[Priority, float] = field(default_factory=dict)
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. `counts` is None until the repositories have been counted after the first full resync."""

    up_seconds: float = 0.0
    stopping: bool = False
    database: DatabaseFacts = DatabaseFacts()
    stream: StreamFacts = StreamFacts()
    repair: RepairFacts = RepairFacts()
    leader: LeaderFacts = LeaderFacts()
    queue: QueueFacts = QueueFacts()
    counts: CountFacts | None = None
    inngest: InngestFacts = InngestFacts()
    jobs: JobFacts = field(default_factory=JobFacts)
