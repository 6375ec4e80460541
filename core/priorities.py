"""What a priority is, its score, and which one a repository should have.

The rules are the contract between this code, the SQL functions and the job queue. PostgreSQL applies them
(`sync_workspace_priorities`); the copy here explains them, serves look-ups that fail, and is what the tests
compare the database with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

Priority: TypeAlias = Literal["high", "medium", "low"]
"""The priorities of jobs, metrics and the queue."""

PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)

Label: TypeAlias = Literal["critical", "high", "medium", "low"]
"""What `tracked_repositories.priority` may be set to.

`critical`, which an application may have beside the three, is only ever set by hand, and counts as high
everywhere else.
"""

LABELS: Final[tuple[Label, ...]] = get_args(Label)

DEFAULT_PRIORITY: Final[Priority] = "medium"
"""Of a repository in no workspace, and of any whose priority can't be looked up."""

SCORES: Final[dict[Priority, int]] = {"high": 100, "medium": 50, "low": 25}
"""The score of a priority in a job queue; larger goes first."""

Trigger: TypeAlias = Literal[
    "event",  # a change in the stream named the repository, or its removal could not be named
    "sweep",  # the periodic search for rows that disagree with membership
    "resync",  # the scheduled walk over every row
    "start",  # the first resync of a daemon's life
    "reconnect",  # the stream was interrupted and is live again
    "signal",  # an operator sent SIGHUP
    "overflow",  # more repositories changed than the work queue holds
    "manual",  # an operator or a library caller asked
    "pin",  # a manual priority was set or cleared
    "migration",  # the first backfill
    "rollback",  # `priorityd rollback`
]
"""Why priorities were looked at or changed: the same words in SQL, metrics and logs."""

TRIGGERS: Final[tuple[Trigger, ...]] = get_args(Trigger)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the columns of a tracked repository should hold.

    The priority is a `Label`, unless the application's own `manual_priority` has another word.
    """

    priority: str
    is_workspace_repo: bool
    workspace_count: int


def expected(workspace_count: int, manual_priority: Label | None) -> Expected:
    """Apply the rules: in a workspace → high, or critical if it is pinned there; in none → the manual
    priority, else medium.

    `workspace_count` is the number of distinct workspaces that hold the repository.
    """
    if workspace_count >= 1:
        priority = "critical" if manual_priority == "critical" else "high"
        return Expected(priority, is_workspace_repo=True, workspace_count=workspace_count)
    return Expected(manual_priority or DEFAULT_PRIORITY, is_workspace_repo=False, workspace_count=0)


def level(word: str | None) -> Priority | None:
    """What the value in a row counts as: critical as high; None for an unknown one."""
    if word == "critical":
        return "high"
    return next((known for known in PRIORITIES if known == word), None)


def score(priority: Priority | None) -> int:
    """The score of a priority; an unknown repository (None) scores as medium."""
    return SCORES[priority or DEFAULT_PRIORITY]
