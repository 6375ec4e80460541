"""The parts of a run, as the faults get hold of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from uuid import UUID

from daemon.sandbox.postgres import EmbeddedPostgres
from daemon.sandbox.server import SandboxServer
from tests.chaos.fleet import Fleet
from tests.chaos.proxy import Proxy
from tests.chaos.workload import Workload


@dataclass
class World:
    """Everything that can be broken."""

    postgres: EmbeddedPostgres
    server: SandboxServer
    proxy: Proxy
    fleet: Fleet
    workload: Workload
    chance: random.Random

    @property
    def url(self) -> str:
        """The database's."""
        return self.postgres.url()

    def repository(self) -> UUID:
        """One of those that the workload works with."""
        return self.chance.choice(self.workload.repositories)
