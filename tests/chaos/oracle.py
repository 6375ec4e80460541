"""Finds what is wrong, and for how long, by the application's tables and the audit trail alone.

Rows that the application of the run's world refuses to have changed are left out, and named by themselves.
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

# A high that the application set is no override where a workspace took the repository before it was adopted;
# then the trail says that the row was in a workspace. Nor where a membership names the repository, even
# one that does not count.
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
# Each entry goes on from what the one before it has left, and the last one left what the row is now: then
# none is missing and none was written twice. Left out are rows whose priority the application set by itself.
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
# What the trail tells and did not happen: more entries of a kind than there were such changes of the row.
_FALSE = """
select count(*) from (
    select c.tracked_repository_id, c.old_priority, coalesce(c.old_is_workspace_repo, false),
        c.old_manual_priority, c.new_priority, c.is_workspace_repo, c.manual_priority
    from repository_priority_changes c
    except all
    select tracked_id, old_priority, old_flag, old_manual, new_priority, new_flag, new_manual
    from chaos_changes
) told
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
    """The ids of these rows and of their repositories."""
    return {str(id_) for row in await insist(url, habits(world).list_refused) for id_ in row[:2]}


async def false_records(url: str) -> int:
    """Audit entries that tell of a change which the row did not undergo."""
    ((found,),) = await insist(url, _FALSE)
    return int(found)


async def audit_entries(url: str) -> int:
    """How many changes of priority or flag are recorded."""
    ((entries,),) = await insist(url, _ENTRIES)
    return int(entries)


async def broken_audit(url: str) -> list[tuple[Any, ...]]:
    """The entries of the audit trail that are doubled or follow a gap. No row may be wrong."""
    return await insist(url, _AUDIT)


async def deadlocks(url: str) -> int:
    """Deadlocks that PostgreSQL has resolved since it last crashed."""
    ((found,),) = await insist(url, _DEADLOCKS)
    return int(found)


async def seconds_until_right(url: str, limit_seconds: float, world: str = PLAIN) -> float | None:
    """How long it takes until no row is wrong; None if it takes longer. Nobody may be changing rows."""
    started_at = time.monotonic()
    while await wrong_rows(url, world):
        if time.monotonic() - started_at > limit_seconds:
            return None
        await anyio.sleep(_POLL_SECONDS)
    return time.monotonic() - started_at
