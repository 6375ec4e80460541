"""The calls of the outbox, and changes to be announced."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from tests.support.world import World

ME, OTHER = uuid4(), uuid4()


def opened(world: World) -> dict[str, Any]:
    return world.call("open_priority_outbox")


def changed(world: World, repository: UUID | None = None, times: int = 1) -> UUID:
    """A tracked repository with that many changes on record."""
    repository = repository or world.tracked()
    for _ in range(times):
        row = world.row(repository)
        if row.is_workspace_repo:
            world.execute("delete from workspace_repositories where repository_id = %s", repository)
        else:
            world.add(repository)
        assert world.sync(repository)["changed"] == 1
    return repository


def claim(world: World, by: UUID = ME, limit: int = 500, seconds: float = 60) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = world.call("claim_priority_changes", by, limit, seconds)["changes"]
    return changes


def ids(changes: list[dict[str, Any]]) -> list[int]:
    return [change["id"] for change in changes]


def depth(world: World) -> tuple[int, int]:
    answer = world.call("priority_outbox_depth")
    return answer["pending"], answer["abandoned"]


def expire(world: World, *change_ids: int) -> None:
    world.execute(
        "update repository_priority_changes set next_attempt_at = now() where id = any (%s)", list(change_ids)
    )
