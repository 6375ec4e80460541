"""How a repository, a row or a job is called in what people read: `owner/name` with the id behind it, or the
id alone where the application's tables have no name for it.
"""

from __future__ import annotations

from uuid import UUID


def known_as(repository_id: UUID | str, name: str | None) -> str:
    """`acme/web (6c1b6d2e-…)`, or the id."""
    return f"{name} ({repository_id})" if name else str(repository_id)


def row_known_as(tracked_repository_id: UUID | str, name: str | None) -> str:
    """A tracked row that has no repository yet: what it says itself, and its own id."""
    row = f"tracked row {tracked_repository_id}, without a repository"
    return f"{name} ({row})" if name else row


def job_known_as(job_id: UUID | str, repository_id: UUID | str | None, name: str | None) -> str:
    """A job, by its repository if it has one."""
    return f"job {job_id}" + (f" of {known_as(repository_id, name)}" if repository_id else "")
