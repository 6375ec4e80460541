"""Where the flows of a world run: a database behind the sandbox's servers, and a stand-in for Inngest."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

from tests.support.application import Application
from tests.support.database import Database, Server
from tests.support.event_api import EVENT_KEY, EventApi, serve_event_api
from tests.support.event_api import Faults as EventFaults
from tests.support.faults import Faults
from tests.support.servers import start_servers
from tests.support.stack import Stack

Json = dict[str, Any]

_EMPTY = """
do $$ begin execute (
    select 'truncate ' || string_agg(c.oid::regclass::text, ', ') from pg_class c
    where c.oid in (
        'repositories'::regclass, 'workspaces'::regclass, 'workspace_repositories'::regclass,
        'tracked_repositories'::regclass, 'background_jobs'::regclass
    ) or (
        c.relnamespace = 'priorityd'::regnamespace
        and c.relname in ('ordered_jobs', 'job_lanes', 'job_turns', 'job_hints')
    )
); end $$
"""


@dataclass
class Place:
    """`size` is the number of repositories in flows about many; `findings` what `check` did not find ok."""

    stack: Stack
    inngest: EventApi
    inngest_url: str
    size: int
    findings: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def clear(self) -> None:
        """Remove everything that a flow has left."""
        self.app.connection.execute(_EMPTY)
        self.inngest.faults = EventFaults()

    @property
    def app(self) -> Application:
        return self.stack.app

    @property
    def inngest_settings(self) -> dict[str, Any]:
        return {
            "INNGEST_EVENT_API_BASE_URL": self.inngest_url,
            "INNGEST_EVENT_KEY": EVENT_KEY,
            "PRIORITYD_DISPATCH_CHANGES": "false",
            "PRIORITYD_HOST_SYNC_FUNCTION": "false",
        }

    async def priorityd(self, *arguments: str, codes: tuple[int, ...] = (0,), **settings: object) -> str:
        """What a command prints; its exit code must be one of these."""
        code, out, err = await self.stack.priorityd(*arguments, **settings)
        assert code in codes, f"priorityd {arguments[0]} ended with {code}: {err.strip() or out.strip()}"
        return out

    async def rpc(self, function: str, **arguments: object) -> Any:
        """Call a function as the daemon does: as service_role, through REST."""
        key = self.stack.server.service_role_key
        async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
            answer = await client.post(
                f"{self.stack.server.url}/rest/v1/rpc/{function}",
                headers={"apikey": key, "Authorization": f"Bearer {key}"},
                json=arguments,
            )
        assert answer.is_success, f"{function}: {answer.status_code} {answer.text}"
        return answer.json()

    async def sync(self, *repositories: UUID) -> None:
        """Sync these repositories."""
        await self.rpc("sync_workspace_priorities", p_repository_ids=[str(each) for each in repositories])

    def value(self, query: str, *args: object) -> Any:
        row = self.app.connection.execute(query.encode(), args or None).fetchone()
        assert row is not None
        return row[0]

    def member(self, **columns: object) -> UUID:
        """A tracked repository in a workspace of its own."""
        repository = self.app.repository(tracked=False)
        self.app.track(repository, **columns)
        self.app.add(self.app.workspace(), repository)
        return repository

    def refusing(self) -> set[str]:
        """Repositories that must become high, but whose rows the application refuses to change."""
        return {str(self.member(**columns)) for columns in self.app.habits.refusing}

    def all_right(self, refused: list[Json]) -> None:
        """Check that no row is wrong except those that the application refuses, as listed in the answers."""
        assert self.app.wrong_rows() == 0, f"{self.app.wrong_rows()} rows are wrong"
        unwritable = self.app.connection.execute(self.app.habits.list_refused.encode()).fetchall()
        expected, named = {str(row[1]) for row in unwritable}, {row["repository_id"] for row in refused}
        assert named == expected, f"refused are {named}, not {expected}"


@asynccontextmanager
async def open_place(database: Database, size: int) -> AsyncIterator[Place]:
    """A place on this database, for the length of the block."""
    api = EventApi()
    async with start_servers(database.url, faults=Faults()) as server, serve_event_api(api) as url:
        stack = Stack(server, database, Application(database.connect(), database.world))
        place = Place(stack, api, url, size)
        answer = json.loads(await place.priorityd("check", "--json", codes=(0, 1), PRIORITYD_HTTP_PORT=0))
        for finding in answer["findings"]:
            if finding["outcome"] in ("warning", "failed"):
                place.findings[finding["step"]].append(finding["text"])
        yield place


@asynccontextmanager
async def place_in(server: Server, template: str, world: str, size: int) -> AsyncIterator[Place]:
    """A place in a database of its own."""
    with server.database(template, world) as database:
        async with open_place(database, size) as place:
            yield place
