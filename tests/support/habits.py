"""What differs between the worlds' applications, as far as tests must know.

It is defined here independently of the project's functions, which are tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ACTIVE = """wr.workspace_id is not null and (
    exists (select from workspaces w where w.id = wr.workspace_id and w.is_active is false)
) is not true"""

_WRONG = """
select {what} from tracked_repositories t
left join (
    select wr.repository_id, count(distinct wr.workspace_id)::integer as workspaces
    from workspace_repositories wr where {counts} group by wr.repository_id
) m using (repository_id)
where ({unwritable}) is {unwritable_or_not} true
and (t.priority::text, t.is_workspace_repo, t.workspace_count) is distinct from (
    case when m.workspaces > 0 then 'high' else coalesce(t.manual_priority::text, 'medium') end,
    coalesce(m.workspaces, 0) > 0,
    coalesce(m.workspaces, 0)
)
"""


@dataclass(frozen=True)
class Habits:
    """`counts` says which rows `wr` of workspace_repositories count, `unwritable` which tracked rows `t` the
    application does not allow to change; `refusing` has columns that make a row such a one.

    `remove` takes a workspace and repositories, `delete_workspace` a workspace.
    """

    counts: str = _ACTIVE
    unwritable: str = "false"
    refusing: tuple[Mapping[str, Any], ...] = ()
    remove: str = "delete from workspace_repositories where workspace_id = %s and repository_id = any (%s)"
    delete_workspace: str = "delete from workspaces where id = %s"

    @property
    def count_wrong(self) -> str:
        """A query for the number of rows that disagree with membership and could be written."""
        return self._wrong("count(*)", "not")

    @property
    def list_refused(self) -> str:
        """A query for the rows that disagree with membership because the application refuses the change."""
        return self._wrong(
            "t.id, t.repository_id, coalesce(to_jsonb(t) ->> 'repository_name', 'unnamed') as name", ""
        )

    def _wrong(self, what: str, unwritable_or_not: str) -> str:
        return _WRONG.format(
            what=what, counts=self.counts, unwritable=self.unwritable, unwritable_or_not=unwritable_or_not
        )


_USUAL = Habits()
_HABITS = {
    "strict": Habits(
        unwritable="t.is_archived", refusing=({"repository_name": "archived", "is_archived": True},)
    ),
    "triggers": Habits(
        unwritable="t.repository_name like any ('{raises %%,keeps its priority,vanishes}')",
        refusing=tuple(
            {"repository_name": name}
            for name in (
                *(f"raises {state}" for state in ("23514", "P0001", "P0004", "42501", "40001", "PT409")),
                "keeps its priority",
                "vanishes",
            )
        ),
    ),
    "soft": Habits(
        counts=f"wr.removed_at is null and {_ACTIVE}",
        remove="update workspace_repositories set removed_at = now()"
        " where workspace_id = %s and repository_id = any (%s) and removed_at is null",
        delete_workspace="update workspaces set is_active = false where id = %s",
    ),
}


def habits(world: str) -> Habits:
    """The habits of a world's application."""
    return _HABITS.get(world, _USUAL)
