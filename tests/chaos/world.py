"""The parts of a run, as the faults get hold of them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from uuid import UUID

from priorityd.daemon.sandbox.postgres import EmbeddedPostgres
from priorityd.daemon.sandbox.server import SandboxServer
from priorityd.daemon.sandbox.worlds import PLAIN
from tests.chaos.clock import Clock
from tests.chaos.fleet import Fleet
from tests.chaos.workload import Workload
from tests.support.proxy import Proxy


@dataclass
class World:
    """Everything that can be broken; `name` is which of the sandbox's worlds the application lives in.

    Hold `postgres_lock` while starting or stopping PostgreSQL. `unharmed_seconds` is how long the changes of
    a repository took that no fault concerned, each; `takeover_seconds` how long nobody did the timer work
    after its daemon was killed.
    """

    postgres: EmbeddedPostgres
    server: SandboxServer
    proxy: Proxy
    fleet: Fleet
    workload: Workload
    clock: Clock
    chance: random.Random
    name: str = PLAIN
    postgres_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    unharmed_seconds: list[float] = field(default_factory=list)
    takeover_seconds: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The database's."""
        return self.postgres.url()

    def repository(self) -> UUID:
        """One of those that the workload works with."""
        return self.chance.choice(self.workload.repositories)
