"""What the daemon logs: each event and its levels, read from the calls of `log` in the source.

Most calls name their event. Those that work theirs out are listed here, and a call that is not is an error.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
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
_WORKED_OUT: Final = {
    ("inngest/delivery.py", "self.defect"): ("release_failed_unexpectedly", "dispatch_failed_unexpectedly"),
    ("jobs/releaser.py", "event"): ("job_release_failed", "job_releases_held_back"),
}
_SEVERAL_LEVELS: Final = {
    ("leader/elector.py", "tell"): {"lease_not_answered": {"warning", "debug"}},
    ("repair/resyncer.py", "log.log"): {"resync_done": {"info"}, "resync_failed": {"warning"}},
}


def events() -> dict[str, set[str]]:
    """The levels of each event."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in sorted((ROOT / "daemon").rglob("*.py")):
        path = str(file.relative_to(ROOT / "daemon"))
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call):
                for event, levels in _logged(path, call):
                    found[event] |= levels
    return dict(found)


def without_a_name() -> list[str]:
    """The files with calls that tell a repository's id and not its name."""
    return [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "daemon").rglob("*.py"))
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("log.")
        if {"repository_id", "tracked_repository_id"} & {word.arg for word in call.keywords}
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
    return _WORKED_OUT[path, ast.unparse(event)]


if __name__ == "__main__":
    for name, levels in sorted(events().items()):
        print(name, *sorted(levels))
