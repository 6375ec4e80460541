"""How a repository is called in what people read: `owner/name` with the id behind it, or the id alone."""

from __future__ import annotations

from uuid import UUID


def known_as(repository_id: UUID, name: str | None) -> str:
    """`acme/web (6c1b6d2e-…)`, or the id where the application's tables tell no name."""
    return f"{name} ({repository_id})" if name else str(repository_id)
