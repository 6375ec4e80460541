"""An entry of the table: how it is made wrong, what must be found, and what the remedy comes to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

from tests.support.stack import Stack

TYPED: Final = "typed"
Outcome = Literal["failed", "warning", "skipped"]


@dataclass
class Place:
    """Where a situation takes place: a good set-up, in which something is then made wrong.

    `environment` is what `priorityd check` is started with. `right` is what an operator would put in the
    place of an ellipsis in a command, by variable. `open` closes what a situation has opened.
    """

    stack: Stack
    directory: Path
    open: AsyncExitStack
    environment: dict[str, str]
    right: dict[str, str]
    repository: UUID
    workspace: UUID
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Of the sandbox's server."""
        port = urlsplit(self.stack.server.url).port
        assert port is not None
        return port

    def execute(self, statements: str) -> None:
        """Run SQL as the owner of everything."""
        self.stack.app.connection.execute(statements.encode())

    def set(self, **variables: object) -> None:
        """Change the environment; None takes a variable away."""
        for name, value in variables.items():
            self.environment.pop(name, None)
            if value is not None:
                self.environment[name] = str(value)


Act = Callable[[Place], Awaitable[None] | None]


@dataclass(frozen=True)
class Situation:
    """What `wrong` does must be found in `step`, with the text `says` and the exit code `code`.

    `remedy` is part of the advice that must be printed, `command` of the command. `fix` is `TYPED` if that
    command fixes it, else what someone does who follows the advice. `after` checks the result.
    `makes_role`: it makes the restricted role, which is the server's, so that there can be one at a time.
    """

    name: str
    wrong: Act
    step: str
    says: str
    code: int
    remedy: str
    command: str
    fix: Literal["typed"] | Act = TYPED
    outcome: Outcome = "failed"
    after: Act | None = None
    makes_role: bool = False


def sql(*statements: str) -> Act:
    """An act that runs these."""

    def act(place: Place) -> None:
        for statement in statements:
            place.execute(statement)

    return act


def variables(**values: object) -> Act:
    """An act that changes the environment."""
    return lambda place: place.set(**values)
