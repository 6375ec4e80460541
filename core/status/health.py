"""The one model of health: what is known, how old it is, what is wrong, and how bad that is.

The headline, readiness, `/status`, systemd's status line, the command line and the alerts all come from here,
so they never contradict each other.

A daemon is *ready* when its first full resync is done, the database has answered recently, and changes are
either heard (the daemon's own heartbeat row came back) or found by sweeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from priorityd.core.status.facts import CountFacts, Facts
from priorityd.core.status.problems import (
    SWEEP_OVERDUE_SECONDS,
    Problem,
    find_problems,
    has_answered,
    inversions_sentence,
    is_heard,
    is_led,
    silence,
)

STARTING = "Starting: the first full resync has not finished."


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict. `headline` is the worst problem, or else `priorities`: a sentence about the priorities."""

    headline: str
    priorities: str
    problems: tuple[Problem, ...]
    not_ready_because: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether the daemon keeps priorities in sync."""
        return not self.not_ready_because

    @property
    def line(self) -> str:
        """The verdict in one line, for a service manager."""
        return f"{'ready' if self.ready else 'not ready'}; {self.headline}"


def judge(facts: Facts) -> Health:
    """The health of a daemon, judged by these facts."""
    problems = tuple(find_problems(facts))
    priorities = _priorities(facts)
    critical = any(problem.severity == "critical" for problem in problems)
    headline = problems[0].text if problems and (critical or facts.repair.started) else priorities
    return Health(headline, priorities, problems, tuple(_why_not_ready(facts)))


def _why_not_ready(facts: Facts) -> Iterator[str]:
    repair = facts.repair
    if facts.stopping:
        yield "stopping"
    if not repair.started:
        yield "the first full resync has not finished"
    if not has_answered(facts.database):
        yield silence(facts.database)
    swept = repair.sweeps and repair.overdue_seconds < SWEEP_OVERDUE_SECONDS and is_led(facts.leader)
    if not (facts.stream.heard and is_heard(facts.stream)) and not swept:
        yield "no changes come through the stream, and no sweep has succeeded"


def _priorities(facts: Facts) -> str:
    if not facts.repair.started:
        return STARTING
    if facts.counts is None:
        return "The repositories have not been counted yet."
    return _counted(facts.counts)


def _counted(counts: CountFacts) -> str:
    if counts.inversions:
        return inversions_sentence(counts)
    total = counts.workspace_repositories
    if total == 0:
        return "No repository is in a workspace."
    if total == 1:
        return "The only workspace repository is high."
    return f"All {total:,} workspace repositories are high."
