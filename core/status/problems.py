"""Is everything right? The answer in words, from a handful of facts.

What is a problem here is one for somebody who looks now; what should wake somebody is decided by the alerts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from priorityd.core.priorities import Priority

Severity: TypeAlias = Literal["critical", "warning"]

HIGH_LIMIT_SECONDS: Final = 2 * 3600.0
"""Jobs of workspace repositories are done within this time."""
LIMIT_SECONDS: Final = 24 * 3600.0
"""All others are."""
LEAST_SUCCESS: Final = 0.95
"""Of the jobs of workspace repositories."""
_LISTENER_SECONDS: Final = 30.0
_PENDING_SECONDS: Final = 30.0
_OUTBOX_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be, in words for an operator."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the verdict is made from. Counts of repositories are None until they have been counted."""

    not_ready_because: tuple[str, ...] = ()
    workspace_repositories: int | None = None
    inversions: int | None = None
    untracked: int = 0
    listener_state: str = "live"
    listener_seconds: float = 0.0
    listener_failure: str | None = None
    sweeps_succeed: bool = True
    parked: int = 0
    oldest_pending_seconds: float = 0.0
    drift_repaired: int = 0
    last_resync_failed: bool = False
    outbox_oldest_seconds: float = 0.0
    jobs_off_because: str | None = None
    job_inversions: int = 0
    high_jobs_completed: int = 0
    high_jobs_failed: int = 0
    oldest_jobs_seconds: dict[Priority, float] = field(default_factory=dict)
    jobs_held_back_because: str | None = None
    jobs_lost: int = 0


def headline(facts: Facts) -> str:
    """The state of the priorities in one sentence."""
    total, wrong = facts.workspace_repositories, facts.inversions
    if total is None or wrong is None:
        return "The repositories have not been counted yet."
    if wrong:
        return f"{wrong:,} of {counted(total, 'workspace repository', 'workspace repositories')} not high."
    if total == 0:
        return "No repository is in a workspace."
    if total == 1:
        return "The one workspace repository is high."
    return f"All {total:,} workspace repositories are high."


def find_problems(facts: Facts) -> list[Problem]:
    """What is not as it should be, the worst first."""
    problems = [*_of_priorities(facts), *_of_the_daemon(facts), *_of_jobs(facts)]
    return sorted(problems, key=lambda problem: problem.severity)


def counted(number: int, one: str, many: str) -> str:
    """`1 row is`, `2 rows are`: the number, its noun and its verb."""
    return f"{number:,} {one} is" if number == 1 else f"{number:,} {many} are"


def _of_priorities(facts: Facts) -> list[Problem]:
    problems = []
    if facts.inversions:
        text = f"{counted(facts.inversions, 'workspace repository', 'workspace repositories')} not high"
        problems.append(Problem("critical", text))
    if facts.parked:
        text = f"{counted(facts.parked, 'repository', 'repositories')} parked: the row can't be written"
        problems.append(Problem("critical", text))
    if facts.oldest_pending_seconds > _PENDING_SECONDS:
        text = f"a change has been waiting for {facts.oldest_pending_seconds:.0f} s"
        problems.append(Problem("critical", text))
    if facts.drift_repaired:
        text = (
            f"sweeps found {facts.drift_repaired:,} wrong in the last hour that no change had announced: "
            "the stream loses changes"
        )
        problems.append(Problem("warning", text))
    if facts.untracked:
        text = f"{counted(facts.untracked, 'repository', 'repositories')} in a workspace but not tracked"
        problems.append(Problem("warning", text))
    return problems


def _of_the_daemon(facts: Facts) -> list[Problem]:
    problems = [Problem("critical", f"not ready: {reason}") for reason in facts.not_ready_because]
    if facts.listener_state != "live" and facts.listener_seconds > _LISTENER_SECONDS:
        cause = f" ({facts.listener_failure})" if facts.listener_failure else ""
        state = facts.listener_state.replace("_", " ")
        text = f"the change stream has been {state} for {facts.listener_seconds:.0f} s{cause}"
        problems.append(Problem("warning", text + ": changes are found by sweeps"))
    if not facts.sweeps_succeed:
        problems.append(Problem("critical", "sweeps fail"))
    if facts.last_resync_failed:
        problems.append(Problem("warning", "the last full resync failed"))
    if facts.outbox_oldest_seconds > _OUTBOX_SECONDS:
        text = f"a priority change has waited {facts.outbox_oldest_seconds:.0f} s to be announced"
        problems.append(Problem("warning", text))
    return problems


def _of_jobs(facts: Facts) -> list[Problem]:
    problems = []
    if facts.job_inversions:
        text = "1 job has" if facts.job_inversions == 1 else f"{facts.job_inversions:,} jobs have"
        text += " overtaken an older one of a higher priority in the last hour"
        problems.append(Problem("warning", text))
    for priority, seconds in facts.oldest_jobs_seconds.items():
        limit = HIGH_LIMIT_SECONDS if priority == "high" else LIMIT_SECONDS
        if seconds > limit:
            text = f"a job of priority {priority} has been queued for more than {limit / 3600:.0f} h"
            problems.append(Problem("critical" if priority == "high" else "warning", text))
    ended = facts.high_jobs_completed + facts.high_jobs_failed
    if ended and facts.high_jobs_completed / ended < LEAST_SUCCESS:
        share = facts.high_jobs_completed / ended
        problems.append(Problem("warning", f"only {share:.0%} of the jobs of priority high succeeded"))
    if facts.jobs_held_back_because:
        text = f"none of the jobs that wait in order can be released: {facts.jobs_held_back_because}"
        problems.append(Problem("warning", text))
    if facts.jobs_lost:
        lost = counted(facts.jobs_lost, "ordered job", "ordered jobs")
        problems.append(Problem("warning", f"{lost} lost: nobody has reported within the lease"))
    if facts.jobs_off_because and "no table" not in facts.jobs_off_because:
        problems.append(Problem("warning", f"job telemetry is off: {facts.jobs_off_because}"))
    return problems
