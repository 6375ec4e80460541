"""What the applications of some worlds do besides the usual, as statements about a workspace and a
repository.

Some of it makes rows unwritable for a while; about as many rows are made unwritable as are released again.
"""

from __future__ import annotations

from typing import Final

from tests.support.habits import habits

_REFUSING: Final = [columns["repository_name"] for columns in habits("triggers").refusing]
_NAME: Final = "update tracked_repositories set repository_name = '{}' where repository_id = %(repository)s"
_UNNAME: Final = f"""
update tracked_repositories set repository_name = null where id in (
    select t.id from tracked_repositories t
    where {habits("triggers").unwritable} or t.repository_name = 'takes 40 ms' limit 1
)
"""
_MEMBER: Final = "insert into workspace_repositories (workspace_id, repository_id) values ({}, {})"

MISCHIEF: Final[dict[str, tuple[str, ...]]] = {
    "strict": (
        # Half of them are high or not tracked, and can't be archived.
        *[
            """update tracked_repositories set is_archived = true
            where repository_id = %(repository)s and priority <> 'high'"""
        ]
        * 3,
        """update tracked_repositories set is_archived = false
        where id in (select id from tracked_repositories where is_archived limit 1)""",
    ),
    "triggers": (
        *(_NAME.format(name) for name in (*_REFUSING, "takes 40 ms")),
        *[_UNNAME] * (len(_REFUSING) + 1),
    ),
    "loose": (
        _MEMBER.format("%(workspace)s", "null"),
        _MEMBER.format("null", "%(repository)s"),
        _MEMBER.format("%(workspace)s", "%(repository)s"),
        "insert into tracked_repositories (repository_id) values (%(repository)s)",
        """delete from tracked_repositories where id = (
            select id from tracked_repositories where repository_id = %(repository)s limit 1
        )""",
    ),
    "soft": (
        "update workspaces set is_active = not is_active where id = %(workspace)s",
        "update workspaces set is_active = true where not is_active",
        """update workspace_repositories set removed_at = now()
        where workspace_id = %(workspace)s and repository_id = %(repository)s and removed_at is null""",
        """update workspace_repositories set removed_at = now() where id = (
            select id from workspace_repositories
            where workspace_id = %(workspace)s and removed_at is null limit 1
        )""",
        """update workspace_repositories set removed_at = null where id = (
            select id from workspace_repositories where removed_at is not null limit 1
        )""",
    ),
}
"""The statements by world."""

NO_OVERRIDES: Final = ("soft",)
"""Worlds where a `high` set by the application may rightly be lost without a reason in the trail: a past
membership whose row is still there keeps it from being adopted as a manual priority."""
