"""The sandbox's picture: a line for each thing that happens, readable on a narrow terminal too."""

from __future__ import annotations

from typing import Any

import pytest

from priorityd.daemon.sandbox.live_view import LiveView

ID = "6c1b6d2e-0000-4000-8000-000000000001"
WEB = {"repository_id": ID, "name": "acme/web"}
CHANGE = {
    "event": "priority_changed",
    **WEB,
    "old": "medium",
    "new": "high",
    "workspace_count": 1,
    "latency_seconds": 0.08,
}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (CHANGE, f"  acme/web: medium → high, in 1 workspace after 80 ms  {ID}"),
        (
            CHANGE | {"old": "high", "workspace_count": 3, "latency_seconds": None},
            f"  acme/web: high as before, in 3 workspaces  {ID}",
        ),
        (
            CHANGE | {"name": None, "old": None, "new": "medium", "workspace_count": 0},
            f"  {ID}: none → medium, in no workspace after 80 ms  {ID}",
        ),
        (
            CHANGE | {"name": None, "repository_id": None, "tracked_repository_id": ID},
            f"  tracked row {ID}: medium → high, in 1 workspace after 80 ms",
        ),
        (
            {"source": "daemon", "event": "repository_parked", "error": "frozen", **WEB},
            f"  daemon: repository_parked acme/web frozen  {ID}",
        ),
        (
            {"source": "daemon", "event": "row_refused", "name": "acme/web", "error": "frozen"},
            "  daemon: row_refused acme/web frozen",
        ),
        (
            {"source": "daemon", "event": "job_given_up", "job_id": ID, "error": "lost"},
            f"  daemon: job_given_up job {ID} lost",
        ),
        ({"source": "daemon", "event": "sweep_failed", "error": "late"}, "  daemon: sweep_failed late"),
        (
            {"event": "added", "repository_id": ID, "repository": "acme/web", "workspace": "data"},
            f"acme/web added to workspace data  {ID}",
        ),
        (
            {"event": "workspace_deleted", "workspace": "data"},
            "workspace data deleted with all its memberships",
        ),
    ],
)
def test_names_come_first_and_the_id_last(event: dict[str, Any], line: str) -> None:
    view = LiveView()
    view.event(event)
    (shown,) = view._events
    assert shown.plain[10:] == line
    assert shown.no_wrap
