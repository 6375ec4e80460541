"""Finds what is wrong, and for how long, using only the application's tables and the audit trail.

Rows that the application of the run's world does not allow to change are left out, and listed separately.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import anyio

from priorityd.daemon.sandbox.worlds import PLAIN
from tests.chaos.database import insist
from tests.support.habits import habits

_POLL_SECONDS = 0.05

# A high set by the application is not an override if the repository joined a workspace before the high was
# adopted; then the trail says that the row was in a workspace. Nor is it one if the repository has a
# membership, even one that does not count.
_LOST_PINS = """
select count(*) from chaos_manual c join tracked_repositories t on t.id = c.tracked_id
where t.manual_priority::text is distinct from c.priority
    and not (c.by_application and t.manual_priority is null and (
        exists (
            select from repository_priority_changes h
            where h.tracked_repository_id = c.tracked_id and h.is_workspace_repo
        )
        or exists (select from workspace_repositories w where w.repository_id = t.repository_id)
    ))
"""
# If each entry starts from what the previous one has left, and the last one has left the row's current state,
# no entry is missing or doubled. Rows whose priority was set by the application itself are left out.
_AUDIT = """
with entries as (
    select
        c.tracked_repository_id as id, c.trigger, c.changed_at,
        (c.old_priority::text, coalesce(c.old_is_workspace_repo, false)) as old,
        (c.new_priority::text, c.is_workspace_repo) as new,
        lag((c.new_priority::text, c.is_workspace_repo)) over w as before,
        lead(c.id) over w is null as is_last
    from repository_priority_changes c
    where not exists (select from chaos_manual m where m.tracked_id = c.tracked_repository_id)
    window w as (partition by c.tracked_repository_id order by c.id)
)
select e.*, t.priority, t.is_workspace_repo, t.manual_priority
from entries e left join tracked_repositories t on t.id = e.id
where (e.before is not null and e.old is distinct from e.before)
    or e.old = e.new
    or (e.is_last and t.id is not null and (t.priority::text, t.is_workspace_repo) is distinct from e.new)
"""
# What the trail records but did not happen: more entries of a kind than there were such changes of the row.
_FALSE = """
select count(*) from (
    select c.tracked_repository_id, c.old_priority, coalesce(c.old_is_workspace_repo, false),
        c.old_manual_priority, c.new_priority, c.is_workspace_repo, c.manual_priority
    from repository_priority_changes c
    except all
    select tracked_id, old_priority, old_flag, old_manual, new_priority, new_flag, new_manual
    from chaos_changes
) recorded
"""
_ENTRIES = "select count(*) from repository_priority_changes"
_DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


async def wrong_rows(url: str, world: str = PLAIN) -> int:
    """Tracked rows whose priority disagrees with membership, or whose manual priority was lost."""
    ((wrong,),) = await insist(url, habits(world).count_wrong)
    ((lost,),) = await insist(url, _LOST_PINS)
    return int(wrong + lost)


async def unwritable(url: str, world: str = PLAIN) -> Counter[str]:
    """The names of the rows that disagree with membership because the application refuses the change."""
    return Counter(name for _, _, name in await insist(url, habits(world).list_refused))


async def may_be_parked(url: str, world: str = PLAIN) -> set[str]:
    """The ids of the refused rows and of their repositories."""
    return {str(id_) for row in await insist(url, habits(world).list_refused) for id_ in row[:2]}


async def false_records(url: str) -> int:
    """How many audit entries record a change that did not happen."""
    ((found,),) = await insist(url, _FALSE)
    return int(found)


async def audit_entries(url: str) -> int:
    """How many changes of priority or flag are recorded."""
    ((entries,),) = await insist(url, _ENTRIES)
    return int(entries)


async def broken_audit(url: str) -> list[tuple[Any, ...]]:
    """The entries of the audit trail that are doubled or follow a gap. To be called while no row is wrong."""
    return await insist(url, _AUDIT)


async def deadlocks(url: str) -> int:
    """Deadlocks that PostgreSQL has resolved since it last crashed."""
    ((found,),) = await insist(url, _DEADLOCKS)
    return int(found)


async def seconds_until_right(url: str, limit_seconds: float, world: str = PLAIN) -> float | None:
    """Seconds until no row is wrong; None if it takes longer. Nobody may be changing rows meanwhile."""
    started_at = time.monotonic()
    while await wrong_rows(url, world):
        if time.monotonic() - started_at > limit_seconds:
            return None
        await anyio.sleep(_POLL_SECONDS)
    return time.monotonic() - started_at
