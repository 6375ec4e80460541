"""Reports for the status page: one where all is well, and ways to derive others from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from priorityd.core.history import MINUTES
from priorityd.core.priorities import PRIORITIES
from priorityd.core.vocabulary import JOB_STATUSES
from priorityd.daemon.status.report import Report

NOW = datetime(2025, 1, 3, 12, 30, 40, tzinfo=UTC)
REPOSITORY = UUID("00000000-0000-4000-8000-000000000001")
ROW = UUID("00000000-0000-4000-8000-000000000002")


def a_report(**changes: Any) -> Report:
    """1,204 workspace repositories, all high, last change 12 s ago."""
    return Report.model_validate(_well() | changes)


def an_hour(*, changes: int = 3) -> dict[str, Any]:
    """A history in which every minute has this number of changes of each priority."""
    latency = {"count": changes, "p50_seconds": 0.14, "p95_seconds": 0.31}
    none = {"count": 0, "p50_seconds": None, "p95_seconds": None}
    return {
        "minutes": [
            {
                "at": NOW.replace(second=0) - timedelta(minutes=ago),
                "changes": dict.fromkeys(PRIORITIES, changes),
                "latency": dict.fromkeys(PRIORITIES, latency if changes else none),
            }
            for ago in range(MINUTES - 1, -1, -1)
        ],
        "changes": changes * len(PRIORITIES) * MINUTES,
        "latency": dict.fromkeys(PRIORITIES, latency if changes else none),
        "outages": [],
    }


def a_busy_hour() -> dict[str, Any]:
    """The report's fields for an hour in which the daemon started, with an import and three outages.

    The last outage still goes on.
    """
    history = an_hour(changes=0)
    first: datetime = history["minutes"][0]["at"]
    for index, minute in enumerate(history["minutes"]):
        quiet = index < 5 or 20 <= index < 24 or 44 <= index < 50 or index >= 57
        for priority, step in {} if quiet else {"high": 7, "medium": 4}.items():
            # Figures without a visible pattern, the same each time.
            count = (4200 if priority == "high" else 12) if index == 33 else index * index * step % 11
            p50 = 0.2 + index * step % 9 / 40
            if count:
                minute["changes"] = minute["changes"] | {priority: count}
                latency = {
                    "count": count,
                    "p50_seconds": p50,
                    "p95_seconds": p50 * (24 if count > 99 else 1.6),
                }
                minute["latency"] = minute["latency"] | {priority: latency}
    summary = {"count": 4200, "p50_seconds": 0.28, "p95_seconds": 0.52}
    problem = {
        "name": "changes_not_heard",
        "severity": "warning",
        "text": "No changes come through the stream; sweeps find them within 10 s: "
        "refused: the server answered 503.",
        "alert": "ChangesNotHeard",
    }
    return {
        "started_at": first + timedelta(minutes=5),
        "headline": problem["text"],
        "problems": [problem],
        "listener": _well()["listener"] | {"state": "backing_off", "hears": False},
        "known": _well()["known"] | {"stream_seconds": 160.0},
        "history": history
        | {
            "changes": sum(sum(minute["changes"].values()) for minute in history["minutes"]),
            "latency": history["latency"] | {"high": summary, "medium": summary},
            "outages": [
                {"name": name, "began_at": first + timedelta(minutes=begin), "ended_at": end}
                for name, begin, end in (
                    ("database_silent", 20, first + timedelta(minutes=24, seconds=10)),
                    ("changes_not_heard", 44, first + timedelta(minutes=50)),
                    ("changes_not_heard", 57, None),
                )
            ],
        },
    }


def _well() -> dict[str, Any]:
    return {
        "version": "1.2.3",
        "project": "abcdefgh.supabase.co",
        "started_at": NOW - timedelta(days=3),
        "at": NOW,
        "headline": "All 1,204 workspace repositories are high.",
        "priorities": "All 1,204 workspace repositories are high.",
        "problems": [],
        "known": {
            "database_seconds": 4.0,
            "stream_seconds": 7.5,
            "repositories_seconds": 8.0,
            "clock_ahead_seconds": 0.1,
        },
        "ready": True,
        "not_ready_because": [],
        "leader": True,
        "listener": {
            "state": "live",
            "since": NOW - timedelta(hours=2),
            "failures": 0,
            "last_failure": None,
            "lag_seconds": 0.08,
            "hears": True,
            "confirmed": True,
        },
        "queue": {
            "pending": 2,
            "oldest_pending_seconds": 0.1,
            "parked": 0,
            "parked_repositories": [],
            "refused_rows_in_all": 0,
            "refused_rows": [],
            "all_refused_because": None,
        },
        "sweep": {
            "last_done_at": NOW - timedelta(seconds=3),
            "succeeding": True,
            "wanted": False,
            "drift_repaired": 0,
        },
        "resync": {
            "last_done_at": NOW - timedelta(hours=1),
            "last_result": None,
            "next_at": NOW + timedelta(hours=5),
            "recent": [
                {
                    "kind": "full",
                    "trigger": "start",
                    "outcome": "done",
                    "ended_at": NOW - timedelta(hours=1),
                    "seconds": 1.25,
                    "examined": 5000,
                    "changed": 17,
                }
            ],
        },
        "last_change": {"at": NOW - timedelta(seconds=12), "latency_seconds": 0.142},
        "recent_changes": [
            {
                "at": NOW - timedelta(seconds=12),
                "tracked_repository_id": ROW,
                "repository_id": REPOSITORY,
                "name": "acme/web",
                "old_priority": "medium",
                "new_priority": "high",
                "old_workspace_count": 0,
                "workspace_count": 1,
                "trigger": "event",
                "latency_seconds": 0.142,
            }
        ],
        "history": an_hour(),
        "outbox": {"dispatching": False},
        "sync_function": {"hosted": False},
        "ordered_jobs": {"releasing": False},
        "snapshot": {
            "repositories": [
                {"is_workspace_repo": True, "priority": "high", "count": 1204},
                {"is_workspace_repo": False, "priority": "medium", "count": 3000},
                {"is_workspace_repo": False, "priority": "low", "count": 796},
            ],
            "held": 1204,
            "inversions": 0,
            "untracked": 0,
            "outbox_pending": 0,
            "outbox_oldest_seconds": 0,
            "outbox_abandoned": 0,
            "schema_version": 1,
            "taken_at": NOW - timedelta(seconds=8),
        },
        "jobs": {
            "read_by_this_daemon": True,
            "off_because": None,
            "counted_until": NOW - timedelta(seconds=10),
            "held_back_by": None,
            "queued_at": NOW - timedelta(seconds=2),
            "queued_whole": True,
            "queued": {
                "high": {"count": 3, "oldest_seconds": 4.2},
                "medium": {"count": 1250, "oldest_seconds": 5400},
                "low": {"count": 0, "oldest_seconds": 0},
            },
            "ended": {
                priority: {status: 10 * (n + m) for n, status in enumerate(JOB_STATUSES)}
                for m, priority in enumerate(PRIORITIES)
            },
            "inversions": 0,
            "inversion_sample": [],
        },
    }
