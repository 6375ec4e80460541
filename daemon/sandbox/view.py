"""What the sandbox shows: progress, then facts to copy, then what happens.

On a terminal that is a live view; with stdout redirected it is one JSON line with the facts, then one JSON
line per event, and the progress goes to stderr as words.
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

STAND_IN = "A development stand-in for a Supabase project, on this machine alone: not for production."


@dataclass(frozen=True)
class Facts:
    """What a user of the sandbox needs."""

    supabase_url: str
    service_role_key: str
    anon_key: str
    database_url: str
    metrics_url: str | None


class View(ABC):
    """Where the sandbox reports what it does; a context manager for the length of its life."""

    is_live = False

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def step(self, text: str) -> None:
        """Something is being done on the way to being ready."""

    @abstractmethod
    def ready(self, facts: Facts, doors: Sequence[tuple[str, str]]) -> None:
        """Everything is up; `doors` are places where a person can look: names and URLs or lines to type."""

    @abstractmethod
    def event(self, event: dict[str, Any]) -> None:
        """Something has happened; `event` and `source` say what and where."""

    @abstractmethod
    def pulse(self, pulse: Pulse) -> None:
        """How things are now."""

    def say(self, text: str) -> None:
        """Words for a person, on stderr; nowhere once the terminal is gone."""
        with contextlib.suppress(OSError):
            sys.stderr.write(f"priorityd sandbox: {text}\n")
            sys.stderr.flush()

    @abstractmethod
    def close(self) -> None:
        """Leave the output in order; safe to repeat."""


class JsonView(View):
    """JSON lines on stdout.

    The facts are the first line, whatever happens before they are known: events wait for them. If they never
    come, the events go to stderr: they say why.
    """

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] | None = []

    def step(self, text: str) -> None:
        """Progress, as words."""
        self.say(text)

    def ready(self, facts: Facts, doors: Sequence[tuple[str, str]]) -> None:
        """The one line that a caller waits for; the doors are words."""
        self.say(STAND_IN)
        for name, place in doors:
            self.say(f"{name}: {place}")
        self._write(asdict(facts))
        for event in self._waiting or []:
            self._write(event)
        self._waiting = None

    def event(self, event: dict[str, Any]) -> None:
        """One line."""
        if self._waiting is not None:
            self._waiting.append(event)
        else:
            self._write(event)

    def pulse(self, pulse: Pulse) -> None:
        """Not shown: a reader of events can ask the database."""

    def close(self) -> None:
        """Every line is out, or there were no facts to wait for."""
        for event in self._waiting or []:
            self.say(json.dumps(event))
        self._waiting = None

    def _write(self, value: dict[str, Any]) -> None:
        try:
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has what it wanted (`| head -1`); the sandbox goes on without being heard.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def choose_view() -> View:
    """The live view on a terminal, JSON lines elsewhere."""
    if sys.stdout.isatty():
        from priorityd.daemon.sandbox.live_view import LiveView

        return LiveView()
    return JsonView()
