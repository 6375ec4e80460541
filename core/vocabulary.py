"""The terms for jobs that rooms share with settings, commands, metrics and the database."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

JobType: TypeAlias = Literal[
    "historical-pr-sync",
    "recent-prs",
    "pr-details",
    "reviews",
    "comments",
    "repository-issues",
    "repository-discussions",
]

JobStatus: TypeAlias = Literal["completed", "failed", "cancelled"]
"""The values of `background_jobs.status` with which a job has ended."""

JOB_STATUSES: Final[tuple[JobStatus, ...]] = get_args(JobStatus)

PriorityForm: TypeAlias = Literal["score", "word"]
"""The form of an event's `data.priority`: 100, 50 or 25; or high, medium or low."""

QueueMode: TypeAlias = Literal["direct", "ordered"]
"""How a job is queued: sent to Inngest at once, or kept in the database until its release in strict order."""

QUEUE_MODES: Final[tuple[QueueMode, ...]] = get_args(QueueMode)
