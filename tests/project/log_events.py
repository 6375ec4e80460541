"""What the daemon logs: each event, its levels and its fields, read from the calls of `log` in the source.

Most calls name their event. Those that compute it are listed here, and a call that is not listed is an error.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.support.repository import ROOT

_LEVELS: Final = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}
_COMPUTED: Final = {
    ("inngest/delivery.py", "self.defect"): (
        "job_release_failed_unexpectedly",
        "dispatch_failed_unexpectedly",
    ),
    ("jobs/releaser.py", "event"): ("job_release_failed", "job_releases_held_back"),
}
_SEVERAL_LEVELS: Final = {
    ("leader/elector.py", "write"): {"lease_renewal_failed": {"warning", "debug"}},
    ("repair/resyncer.py", "log.log"): {"resync_done": {"info"}, "resync_failed": {"warning"}},
}
_UNPACKED: Final = {"facts": ("operation", "workspace_id", "repository_id")}


@dataclass(slots=True)
class Event:
    """All that some call logs under one name."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def events() -> dict[str, Event]:
    """Each event that the daemon logs."""
    found: dict[str, Event] = defaultdict(Event)
    for file in sorted((ROOT / "daemon").rglob("*.py")):
        path = str(file.relative_to(ROOT / "daemon"))
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call):
                for name, levels in _logged(path, call):
                    found[name].levels |= levels
                    found[name].fields.update(_fields(call))
    return dict(found)


def without_a_name() -> list[str]:
    """The files with calls that log the id of a repository, a row or a job, but no name."""
    return [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "daemon").rglob("*.py"))
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("log.")
        if {"repository_id", "tracked_repository_id", "job_id"} & {word.arg for word in call.keywords}
        if "name" not in {word.arg for word in call.keywords}
    ]


def _logged(path: str, call: ast.Call) -> Iterator[tuple[str, set[str]]]:
    function = ast.unparse(call.func)
    yield from _SEVERAL_LEVELS.get((path, function), {}).items()
    logger, _, method = function.rpartition(".")
    if logger == "log" and method in _LEVELS:
        for event in _names(path, call.args[0]):
            yield event, {_LEVELS[method]}


def _names(path: str, event: ast.expr) -> tuple[str, ...]:
    match event:
        case ast.Constant(value=str(name)):
            return (name,)
        case ast.IfExp(body=ast.Constant(value=str(first)), orelse=ast.Constant(value=str(second))):
            return first, second
    return _COMPUTED[path, ast.unparse(event)]


def _fields(call: ast.Call) -> Iterator[str]:
    for keyword in call.keywords:
        # A traceback is named in words.
        if keyword.arg is not None and keyword.arg != "exc_info":
            yield keyword.arg
        elif keyword.arg is None:
            yield from _UNPACKED[ast.unparse(keyword.value)]


if __name__ == "__main__":
    for name, event in sorted(events().items()):
        print(name, *sorted(event.levels), "|", *sorted(event.fields))
