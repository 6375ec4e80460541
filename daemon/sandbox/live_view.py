"""The sandbox on a terminal."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from priorityd.daemon.sandbox.view import STAND_IN, Facts, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.status import Status

    from priorityd.daemon.sandbox.pulse import Pulse

_SHOWN_EVENTS = 14
_COLOURS = {"high": "bold red", "medium": "yellow", "low": "dim", "live": "green"}


class _Terminal:
    """stdout, ignoring errors when the terminal is gone; the SIGHUP that follows ends the sandbox."""

    def write(self, text: str) -> int:
        """Write the text if possible."""
        with suppress(OSError):
            sys.stdout.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        with suppress(OSError):
            sys.stdout.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


class LiveView(View):
    """Progress with ticks, the facts, and then a display that is redrawn."""

    is_live = True

    def __init__(self) -> None:
        self._console = Console(file=cast("IO[str]", _Terminal()))
        self._status: Status | None = None
        self._live: Live | None = None
        self._step: str | None = None
        self._pulse: Pulse | None = None
        self._events: deque[Text] = deque(maxlen=_SHOWN_EVENTS)

    def step(self, text: str) -> None:
        """Tick off the previous step and show this one."""
        self._tick()
        self._step = text
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def ready(self, facts: Facts, places: Sequence[tuple[str, str]]) -> None:
        """Print the facts and places as lines to copy, and start the live display below them."""
        self._tick()
        self._end_progress()
        self._console.print(f"\n{STAND_IN}", style="bold")
        for name, value in _lines(facts):
            self._console.print(Text.assemble((f"{name}=", "cyan"), value), soft_wrap=True)
        for name, place in places:
            self._console.print(Text.assemble((f"{name}: ", "cyan"), place), soft_wrap=True)
        self._console.print("Ctrl-C ends it.\n", style="dim")
        self._live = Live(self._picture(), console=self._console, refresh_per_second=4)
        self._live.start()

    def event(self, event: dict[str, Any]) -> None:
        """Show the event if it is worth a line."""
        text = _describe(event)
        if text is not None:
            # The id comes last: a narrow terminal cuts it off.
            identity = (f"  {event['repository_id']}", "dim") if event.get("repository_id") else ""
            moment = (f"{datetime.now().astimezone():%H:%M:%S}  ", "dim")
            self._events.append(Text.assemble(moment, text, identity, no_wrap=True, overflow="ellipsis"))
            self._draw()

    def pulse(self, pulse: Pulse) -> None:
        """Show the current state."""
        self._pulse = pulse
        self._draw()

    def close(self) -> None:
        """Release the terminal."""
        self._end_progress()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _tick(self) -> None:
        if self._step is not None:
            self._console.print(Text.assemble(("✓ ", "green"), self._step))
            self._step = None

    def _end_progress(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._picture())

    def _picture(self) -> Group:
        return Group(self._headline(), self._counts(), Text(), *self._events)

    def _headline(self) -> Text:
        pulse = self._pulse
        state = (pulse.listener if pulse else None) or "not running"
        latency = pulse.last_latency_seconds if pulse else None
        return Text.assemble(
            "listener ",
            (state, _COLOURS.get(state, "yellow")),
            f"   memberships {pulse.memberships if pulse else '…'}",
            f"   last change applied after {latency * 1000:.0f} ms" if latency is not None else "",
        )

    def _counts(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("in a workspace", "priority"):
            table.add_column(heading)
        table.add_column("repositories", justify="right")
        for count in self._pulse.counts if self._pulse else []:
            flag = "yes" if count.is_workspace_repo else "no"
            colour = _COLOURS.get(count.priority, "")
            table.add_row(flag, Text(count.priority, colour), str(count.repositories))
        return table


def _lines(facts: Facts) -> list[tuple[str, str]]:
    lines = [
        ("SUPABASE_URL", facts.supabase_url),
        ("SUPABASE_SERVICE_ROLE_KEY", facts.service_role_key),
        ("SUPABASE_ANON_KEY", facts.anon_key),
        ("DATABASE_URL", facts.database_url),
    ]
    return lines + ([("METRICS_URL", facts.metrics_url)] if facts.metrics_url else [])


def _where(event: dict[str, Any]) -> str:
    count = event.get("workspace_count")
    return ", in no workspace" if not count else f", in {count} workspace{'s' if count != 1 else ''}"


def _describe(event: dict[str, Any]) -> Text | None:
    """The event as a line, None if it is not worth one."""
    match event:
        case {"event": "added" | "removed" as action, "repository": repository, "workspace": workspace}:
            preposition = "to" if action == "added" else "from"
            return Text(f"{repository} {action} {preposition} workspace {workspace}")
        case {"event": "workspace_deleted", "workspace": workspace}:
            return Text(f"workspace {workspace} deleted with all its memberships")
        case {"event": "priority_changed" | "workspaces_changed", "old": old, "new": new}:
            latency = event.get("latency_seconds")
            after = f" after {latency * 1000:.0f} ms" if isinstance(latency, int | float) else ""
            priority = (str(new), _COLOURS.get(str(new), ""))
            before, behind = (f"{old or 'none'} → ", "") if old != new else ("", " as before")
            return Text.assemble(
                f"  {_about(event)}: {before}", priority, behind, _where(event), (after, "dim")
            )
        case {"source": "daemon", "event": "output", "line": line}:
            return Text(str(line), "dim")
        case {"source": "daemon", "event": name}:
            told = (name, _about(event), event.get("state") or event.get("error"))
            return Text(f"  daemon: {' '.join(str(each) for each in told if each)}", "dim")
    return None


def _about(event: dict[str, Any]) -> str | None:
    """The repository that an event is about, as people know it; or the row or job that is all there is."""
    if known := event.get("name") or event.get("repository_id"):
        return str(known)
    if row := event.get("tracked_repository_id"):
        return f"tracked row {row}"
    return f"job {event['job_id']}" if event.get("job_id") else None
