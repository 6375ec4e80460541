"""The parts of a run, for the faults to break."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from uuid import UUID

from priorityd.daemon.sandbox.postgres import EmbeddedPostgres
from priorityd.daemon.sandbox.worlds import PLAIN
from tests.chaos.clock import Clock
from tests.chaos.fleet import Fleet
from tests.chaos.workload import Workload
from tests.support.event_api import EventApi
from tests.support.proxy import Proxy
from tests.support.servers import Servers


@dataclass
class World:
    """Everything that can be broken; `name` is which of the sandbox's worlds the application lives in.

    `postgres_lock` is held while PostgreSQL is started or stopped. `unharmed_seconds` has how long each
    change of an unaffected repository took; `takeover_seconds` how long nobody did the timer work after the
    leader was killed; `job_seconds` how long jobs took among unreported ones. Daemons release jobs to
    `event_api`, and announce there if they are configured to.
    """

    postgres: EmbeddedPostgres
    server: Servers
    proxy: Proxy
    fleet: Fleet
    workload: Workload
    clock: Clock
    chance: random.Random
    event_api: EventApi
    name: str = PLAIN
    postgres_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    unharmed_seconds: list[float] = field(default_factory=list)
    takeover_seconds: list[float] = field(default_factory=list)
    job_seconds: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The URL of the database."""
        return self.postgres.url()

    def repository(self) -> UUID:
        """A repository of the workload."""
        return self.chance.choice(self.workload.repositories)
