"""What the sandbox shows: progress, then facts to copy, then events.

On a terminal this is a live view. With stdout redirected it is one JSON line with the facts, then one JSON
line per event; progress goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from priorityd.daemon.sandbox.pulse import Pulse

STAND_IN = "A stand-in for a Supabase project, for development on this machine only: not for production."


@dataclass(frozen=True)
class Facts:
    """What a user of the sandbox needs to connect to it."""

    supabase_url: str
    service_role_key: str
    anon_key: str
    database_url: str
    metrics_url: str | None


class View(ABC):
    """Where the sandbox reports what it does; a context manager that closes itself."""

    is_live = False

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def step(self, text: str) -> None:
        """Show a step of the start."""

    @abstractmethod
    def ready(self, facts: Facts, places: Sequence[tuple[str, str]]) -> None:
        """Show that everything is up. `places` are where a person can look: names, and URLs or commands."""

    @abstractmethod
    def event(self, event: dict[str, Any]) -> None:
        """Show an event; its keys `event` and `source` say what happened and where."""

    @abstractmethod
    def pulse(self, pulse: Pulse) -> None:
        """Show the current state."""

    def say(self, text: str) -> None:
        """Print a message to stderr, or nowhere if the terminal is gone."""
        with contextlib.suppress(OSError):
            sys.stderr.write(f"priorityd sandbox: {text}\n")
            sys.stderr.flush()

    @abstractmethod
    def close(self) -> None:
        """Finish the output; safe to repeat."""


class JsonView(View):
    """JSON lines on stdout.

    The facts are always the first line, so events that happen before are held back. If the sandbox fails
    before it has any facts, these events go to stderr, because they say why.
    """

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] | None = []

    def step(self, text: str) -> None:
        """Print the step to stderr."""
        self.say(text)

    def ready(self, facts: Facts, places: Sequence[tuple[str, str]]) -> None:
        """Print the line that a caller waits for; the places go to stderr."""
        self.say(STAND_IN)
        for name, place in places:
            self.say(f"{name}: {place}")
        self._write(asdict(facts))
        for event in self._waiting or []:
            self._write(event)
        self._waiting = None

    def event(self, event: dict[str, Any]) -> None:
        """Print one line."""
        if self._waiting is not None:
            self._waiting.append(event)
        else:
            self._write(event)

    def pulse(self, pulse: Pulse) -> None:
        """Not shown: a program that reads events can query the database."""

    def close(self) -> None:
        """Print the events that were held back, if there were never any facts."""
        for event in self._waiting or []:
            self.say(json.dumps(event))
        self._waiting = None

    def _write(self, value: dict[str, Any]) -> None:
        try:
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has what it wanted (`| head -1`); the sandbox goes on without output.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def choose_view() -> View:
    """The live view on a terminal, JSON lines elsewhere."""
    if sys.stdout.isatty():
        from priorityd.daemon.sandbox.live_view import LiveView

        return LiveView()
    return JsonView()
