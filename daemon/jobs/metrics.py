"""Metrics of the application's jobs, and of ordered jobs."""

from __future__ import annotations

from typing import Final

from priorityd.core.priorities import PRIORITIES
from priorityd.core.vocabulary import JOB_STATUSES
from priorityd.daemon.metrics import MetricRegistry

_WAIT_BUCKETS: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400, 172_800)
"""They include the two promised limits: 2 h for high and 24 h for the others."""
_RUN_BUCKETS: Final = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 120, 150, 300, 600, 1800, 7200)


class JobMetrics:
    """The job watcher's, about all jobs, however queued."""

    def __init__(self, made: MetricRegistry) -> None:
        self.depth = made.gauge("job_queue_depth", "Jobs that were queued when counted.", priority=PRIORITIES)
        self.oldest = made.gauge(
            "job_queue_oldest_seconds", "How long the oldest of them had been queued.", priority=PRIORITIES
        )
        self.age = made.gauge(
            "job_queue_age_seconds",
            "How old that count was when it was read: a long queue takes a while to count.",
        )
        self.wait = made.histogram(
            "job_wait_seconds", "From a job's creation to its start.", _WAIT_BUCKETS, priority=PRIORITIES
        )
        self.duration = made.histogram(
            "job_duration_seconds", "From a job's start to its end.", _RUN_BUCKETS, priority=PRIORITIES
        )
        self.turnaround = made.histogram(
            "job_turnaround_seconds",
            "From the creation to the end of a job that completed.",
            _WAIT_BUCKETS,
            priority=PRIORITIES,
        )
        self.ended = made.counter("jobs", "Jobs that ended.", priority=PRIORITIES, status=JOB_STATUSES)
        self.inversions = made.counter(
            "job_inversions",
            "Jobs that started a second or more before one of their type and of a higher priority that was "
            "queued no later.",
        )


class ReleaseMetrics:
    """The releaser's."""

    def __init__(self, made: MetricRegistry) -> None:
        self.in_flight = made.gauge(
            "jobs_in_flight",
            "Ordered jobs that are released and neither ended nor lost, of all daemons.",
            priority=PRIORITIES,
        )
        self.released = made.counter(
            "jobs_released", "Ordered jobs that Inngest has accepted.", priority=PRIORITIES
        )
        self.promotions = made.counter(
            "job_promotions",
            "Released jobs that went before higher ones because they were overdue.",
            priority=[priority for priority in PRIORITIES if priority != "high"],
        )
        self.lost = made.counter(
            "jobs_lost", "Leases of ordered jobs that expired without a report.", priority=PRIORITIES
        )
        self.lost_now = made.gauge(
            "jobs_lost_now", "Ordered jobs that are lost, without a report since, and not given up."
        )
        self.given_up = made.counter(
            "jobs_given_up",
            "Ordered jobs that failed because every lease expired without a report.",
        )
        self.unwritable = made.counter(
            "jobs_unwritable",
            "Ordered jobs whose row could not be written because of the application's triggers or checks.",
        )
        self.held_back = made.gauge(
            "job_releases_held_back", "1 while ordered jobs wait because Inngest does not accept them."
        )
