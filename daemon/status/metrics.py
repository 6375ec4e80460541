"""Prometheus metrics of the daemon; the README's table says what each is for.

Every label value that can occur is known, so every series starts at zero. Ids are never labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal, TypeAlias, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from priorityd.core import __version__
from priorityd.core.failures import REASONS
from priorityd.core.outbox.announcements import ANNOUNCED_EVENTS
from priorityd.core.priorities import PRIORITIES, TRIGGERS
from priorityd.core.stream.hints import OPERATIONS, TABLES
from priorityd.core.stream.listener_state import RECONNECT_REASONS, STATES, State
from priorityd.core.vocabulary import JOB_STATUSES

# A `_created` beside every series would double them, and nothing reads it.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package has no annotation there

PREFIX: Final = "workspace_priority_"
NO_PRIORITY: Final = "none"
"""Label of a row that had no priority at all before it was put right."""

Kind: TypeAlias = Literal["full", "sweep"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Outcome: TypeAlias = Literal["done", "failed"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
DISPATCH_OUTCOMES: Final = ("sent", "refused", "failed")
RESYNC_TRIGGERS: Final = tuple(
    trigger for trigger in TRIGGERS if trigger not in ("pin", "migration", "rollback")
)

_LATENCY_BUCKETS: Final = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5, 10, 30, 60, 300, 3600)
_CALL_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RESYNC_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300)
_WAIT_BUCKETS: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400, 172_800)
"""With the two limits that are promised among them: 2 h for high and 24 h for the others."""
_RUN_BUCKETS: Final = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 120, 150, 300, 600, 1800, 7200)
_BATCH_BUCKETS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 10_000)


class Metrics:
    """All metrics of one daemon, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        self.change_latency = self._histogram(
            "change_latency_seconds",
            "From the commit of a workspace change to its priority being applied, by the database's clock.",
            _LATENCY_BUCKETS,
            ["priority"],
        )
        self.changes = self._counter(
            "changes",
            "Tracked rows changed by this daemon, by their priority before and after.",
            ["old", "new", "trigger"],
        )
        self.events = self._counter("events", "Changes received from the stream.", ["table", "operation"])
        self.malformed_events = self._counter("malformed_events", "Changes that could not be read.")
        self.pending = self._gauge("pending_repositories", "Repositories waiting to be looked at.")
        self.oldest_pending = self._gauge("oldest_pending_seconds", "How long the longest has waited.")
        self.parked = self._gauge("parked_repositories", "Repositories whose update fails for good.")
        self.apply_seconds = self._histogram(
            "apply_seconds", "Time of one call that applies a batch.", _CALL_BUCKETS
        )
        self.apply_batch_size = self._histogram(
            "apply_batch_size", "Repositories in such a batch.", _BATCH_BUCKETS
        )
        self.apply_errors = self._counter("apply_errors", "Calls to Supabase that failed.", ["reason"])
        self.resyncs = self._counter(
            "resyncs", "Full resyncs and sweeps that ended.", ["kind", "trigger", "outcome"]
        )
        self.resync_seconds = self._histogram(
            "resync_seconds", "Time of one full resync or sweep.", _RESYNC_BUCKETS, ["kind"]
        )
        self.last_resync = self._gauge(
            "last_resync_timestamp_seconds", "When the last one succeeded, 0 for never.", ["kind"]
        )
        self.drift_repaired = self._counter(
            "drift_repaired", "Rows found wrong by a timer, which no change had announced.", ["kind"]
        )
        self.leader = self._gauge("leader", "1 if the timer work is this daemon's.")
        self.listener_state = self._gauge("listener_state", "1 for the state the listener is in.", ["state"])
        self.reconnects = self._counter("reconnects", "Connections given up, by reason.", ["reason"])
        self.stream_lag = self._gauge(
            "stream_lag_seconds", "Age of the last heartbeat row when it came back through the stream."
        )
        self.stream_last_seen = self._gauge(
            "stream_last_seen_timestamp_seconds", "When anything last came through the stream, 0 for never."
        )
        self.inversions = self._gauge("inversions", "Workspace repositories whose priority is not high.")
        self.untracked = self._gauge(
            "untracked_repositories", "Repositories in a workspace that have no tracked row."
        )
        self._define_jobs()
        self.outbox_pending = self._gauge("outbox_pending", "Changes that wait to be announced to Inngest.")
        self.outbox_oldest = self._gauge("outbox_oldest_seconds", "How long the oldest of them has waited.")
        self.dispatched = self._counter(
            "dispatched",
            "Events that Inngest accepted, refused for good, or did not take for now.",
            ["event", "outcome"],
        )
        self._define_ordered_jobs()
        self.repositories = RepositoryCounts()
        self.registry.register(self.repositories)
        build_info = self._gauge("build_info", "1, labelled with the version.", ["version"])
        build_info.labels(__version__).set(1)
        self._start_at_zero()

    def _define_jobs(self) -> None:
        by_priority = ["priority"]
        self.job_queue_depth = self._gauge("job_queue_depth", "Jobs that are queued.", by_priority)
        self.job_queue_oldest = self._gauge(
            "job_queue_oldest_seconds", "How long the oldest queued job has been.", by_priority
        )
        self.job_wait = self._histogram(
            "job_wait_seconds", "From a job's creation to its start.", _WAIT_BUCKETS, by_priority
        )
        self.job_duration = self._histogram(
            "job_duration_seconds", "From a job's start to its end.", _RUN_BUCKETS, by_priority
        )
        self.job_turnaround = self._histogram(
            "job_turnaround_seconds",
            "From the creation to the end of a job that completed.",
            _WAIT_BUCKETS,
            by_priority,
        )
        self.jobs = self._counter("jobs", "Jobs that ended.", ["priority", "status"])
        self.job_inversions = self._counter(
            "job_inversions",
            "Jobs that started while an older one of their type and of a higher priority was waiting.",
        )

    def _define_ordered_jobs(self) -> None:
        self.jobs_in_flight = self._gauge(
            "jobs_in_flight", "Ordered jobs that are released and not over, of all daemons.", ["priority"]
        )
        self.jobs_released = self._counter(
            "jobs_released", "Ordered jobs that Inngest has taken.", ["priority"]
        )
        self.job_promotions = self._counter(
            "job_promotions", "Those that went before higher ones because they were overdue.", ["priority"]
        )
        self.jobs_lost = self._counter(
            "jobs_lost", "Ordered jobs that nobody reported on within their lease.", ["priority"]
        )
        self.job_releases_held_back = self._gauge(
            "job_releases_held_back", "1 while ordered jobs wait because Inngest does not take them."
        )

    def set_state(self, current: State) -> None:
        """Show the listener in this state."""
        for state in STATES:
            self.listener_state.labels(state).set(1 if state == current else 0)

    def watch_queue(
        self, pending: Callable[[], float], oldest: Callable[[], float], parked: Callable[[], float]
    ) -> None:
        """Read the work queue at each `refresh`."""
        self._watched += [(self.pending, pending), (self.oldest_pending, oldest), (self.parked, parked)]

    def watch_leader(self, is_leader: Callable[[], bool]) -> None:
        """Read at each `refresh` whether this daemon does the timer work."""
        self._watched.append((self.leader, is_leader))

    def refresh(self) -> None:
        """Bring the gauges up to date that show the daemon's state; to be called in its event loop."""
        for gauge, read in self._watched:
            gauge.set(read())

    def _start_at_zero(self) -> None:
        _touch(self.change_latency, [[priority] for priority in PRIORITIES])
        _touch(
            self.changes,
            (
                [old, new, trigger]
                for old in (*PRIORITIES, NO_PRIORITY)
                for new in PRIORITIES
                for trigger in RESYNC_TRIGGERS
            ),
        )
        _touch(self.events, ([table, operation] for table in TABLES for operation in OPERATIONS))
        _touch(self.apply_errors, [[reason] for reason in REASONS])
        _touch(
            self.resyncs,
            (
                [kind, trigger, outcome]
                for kind in KINDS
                for trigger in RESYNC_TRIGGERS
                for outcome in OUTCOMES
            ),
        )
        for by_kind in (self.resync_seconds, self.last_resync, self.drift_repaired):
            _touch(by_kind, [[kind] for kind in KINDS])
        by_priority = (
            self.job_queue_depth,
            self.job_queue_oldest,
            self.job_wait,
            self.job_duration,
            self.job_turnaround,
        )
        for metric in by_priority:
            _touch(metric, [[priority] for priority in PRIORITIES])
        _touch(self.jobs, ([priority, status] for priority in PRIORITIES for status in JOB_STATUSES))
        _touch(self.reconnects, [[reason] for reason in RECONNECT_REASONS])
        _touch(
            self.dispatched, ([event, outcome] for event in ANNOUNCED_EVENTS for outcome in DISPATCH_OUTCOMES)
        )
        for ordered in (self.jobs_in_flight, self.jobs_released, self.jobs_lost):
            _touch(ordered, [[priority] for priority in PRIORITIES])
        _touch(self.job_promotions, [[priority] for priority in PRIORITIES if priority != "high"])
        self.set_state("connecting")

    def _counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str] = ()
    ) -> Histogram:
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)


class RepositoryCounts(Collector):
    """`repositories{is_workspace_repo,priority}`, replaced as a whole with each snapshot.

    A gauge would keep showing a combination that is gone.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def replace(self, counts: dict[tuple[bool, str], int]) -> None:
        """Show these counts by flag and priority."""
        self._counts = {("true" if flag else "false", name): count for (flag, name), count in counts.items()}

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What prometheus-client calls at each scrape."""
        family = GaugeMetricFamily(
            PREFIX + "repositories",
            "Tracked repositories by flag and priority.",
            labels=["is_workspace_repo", "priority"],
        )
        for flag in ("true", "false"):
            for priority in PRIORITIES:
                family.add_metric([flag, priority], self._counts.get((flag, priority), 0))
        yield family


def _touch(metric: Counter | Gauge | Histogram, combinations: Iterable[list[str]]) -> None:
    for labels in combinations:
        metric.labels(*labels)
