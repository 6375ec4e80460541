"""The application's table of jobs, and a daemon that counts what becomes of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from tests.support.world import World


class Jobs:
    """The application's hands on its job table; times are seconds before now."""

    def __init__(self, world: World) -> None:
        self.world = world

    def add(
        self,
        priority: object = None,
        *,
        status: str = "queued",
        created: float = 100,
        started: float | None = None,
        ended: float | None = None,
        repository: UUID | None = None,
        job_type: str | None = None,
        promoted: bool | None = None,
    ) -> UUID:
        column = "failed_at" if status == "failed" else "completed_at"
        return self.world.value(
            f"""insert into background_jobs
                    (type, status, payload, repository_id, created_at, started_at, {column})
                select %s, %s, jsonb_strip_nulls(jsonb_build_object(
                        'priority', %s::jsonb, 'metadata', jsonb_build_object('promoted', %s::boolean))), %s,
                    now() - make_interval(secs => %s), now() - make_interval(secs => %s),
                    now() - make_interval(secs => %s)
                returning id""",
            job_type,
            status,
            _json(priority),
            promoted,
            repository,
            created,
            started,
            ended,
        )

    def end(self, priority: str | None = "high", status: str = "completed") -> UUID:
        """A job that ends now."""
        return self.add(priority, status=status, created=30, started=20, ended=0)


def _json(value: object) -> str | None:
    if value is None:
        return None
    return f'"{value}"' if isinstance(value, str) else str(value)


class Reader:
    """A daemon as far as counting jobs goes."""

    def __init__(self, world: World, limit: int = 1000) -> None:
        self.world = world
        self.limit = limit
        self.daemon_id = uuid4()
        self.counted_page: int | None = None
        self.jobs: list[tuple[str, str]] = []
        self.inversions = 0
        self.last: dict[str, Any] = {}

    def ask(self) -> dict[str, Any]:
        """One call whose answer may still get lost."""
        answer: dict[str, Any] = self.world.call(
            "poll_background_jobs", self.daemon_id, self.counted_page, self.limit, 0.0
        )
        return answer

    def count(self, answer: dict[str, Any]) -> None:
        self.last, self.counted_page = answer, answer["page"]
        self.inversions += answer["inversions"]["count"]
        for group in answer["finished"]:
            self.jobs += [(group["priority"], group["status"])] * group["jobs"]

    def poll(self) -> Reader:
        """Until there is no more."""
        self.count(self.ask())
        while self.last["more"]:
            self.count(self.ask())
        return self

    @property
    def queued(self) -> list[dict[str, Any]]:
        """What waits, by priority, as the last poll counted it."""
        assert self.last["queue"]["whole"]
        queued: list[dict[str, Any]] = self.last["queue"]["jobs"]
        return queued


def inversions(world: World, since: float = 1000) -> dict[str, Any]:
    return world.value(
        """select priorityd.find_job_inversions(
               now() - make_interval(secs => %s), now(), (priorityd.walk_queue(null, 60)).queue_counted
           )""",
        since,
    )
