"""The vocabulary of the job queue: how a job ends, and how long it may take."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

JobStatus: TypeAlias = Literal["completed", "failed", "cancelled"]
"""The values of `background_jobs.status` with which a job has ended."""

JOB_STATUSES: Final[tuple[JobStatus, ...]] = get_args(JobStatus)
