"""A large application: 1,000,000 tracked rows, and 300,000 memberships of 250,000 of them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import psycopg

from tests.support.application import Application

_FILL = """
insert into workspaces (name) select 'workspace ' || n from generate_series(1, {workspaces}) n;
insert into repositories (id) select gen_random_uuid() from generate_series(1, {tracked});
insert into tracked_repositories (repository_id) select id from repositories;
create table picked as
select id, row_number() over () as n from repositories limit {in_workspaces};
create table places as select id, row_number() over () as n from workspaces;
insert into workspace_repositories (workspace_id, repository_id)
select p.id, r.id from picked r join places p on p.n = 1 + r.n % {workspaces};
insert into workspace_repositories (workspace_id, repository_id)
select p.id, r.id from picked r join places p on p.n = 1 + (r.n + 37) % {workspaces}
where r.n <= {in_two};
drop table picked, places
"""

BY_HAND = """
update tracked_repositories t
set is_workspace_repo = m.workspaces > 0, workspace_count = m.workspaces,
    priority = case when m.workspaces > 0 then 'high' else 'medium' end::repository_priority
from (
    select r.id, count(w.workspace_id)::integer as workspaces
    from tracked_repositories r left join workspace_repositories w using (repository_id) group by r.id
) m
where m.id = t.id and (t.is_workspace_repo, t.workspace_count, t.priority) is distinct from (
    m.workspaces > 0, m.workspaces,
    case when m.workspaces > 0 then 'high' else 'medium' end::repository_priority
)
"""
"""What one would write by hand to do it once: it writes only the wrong rows, and keeps no record."""

HAND_PAGE = 50_000
_PAGE_BY_HAND = """
with page as materialized (
    select id, repository_id, priority, is_workspace_repo, workspace_count from tracked_repositories
    where repository_id > %(after)s order by repository_id limit %(rows)s
),
counted as (
    select repository_id, count(*)::integer as workspaces from workspace_repositories
    where repository_id > %(after)s
        and repository_id <= (select p.repository_id from page p order by p.repository_id desc limit 1)
    group by repository_id
),
wrong as (
    select p.*, coalesce(c.workspaces, 0) as workspaces,
        case when c.workspaces > 0 then 'high' else 'medium' end::repository_priority as right_priority
    from page p left join counted c using (repository_id)
    where (p.is_workspace_repo, p.workspace_count, p.priority) is distinct from (
        c.workspaces is not null, coalesce(c.workspaces, 0),
        case when c.workspaces > 0 then 'high' else 'medium' end::repository_priority
    )
),
updated as (
    update tracked_repositories t
    set is_workspace_repo = w.workspaces > 0, workspace_count = w.workspaces, priority = w.right_priority
    from wrong w where t.id = w.id
    returning t.id
),
recorded as (
    insert into repository_priority_changes (
        tracked_repository_id, repository_id, old_priority, new_priority,
        old_is_workspace_repo, is_workspace_repo, workspace_count, trigger
    )
    select w.id, w.repository_id, w.priority, w.right_priority,
        w.is_workspace_repo, w.workspaces > 0, w.workspaces, 'resync'
    from wrong w join updated u on u.id = w.id
)
select p.repository_id from page p order by p.repository_id desc limit 1
"""

COUNT_BY_HAND = """
select count(*)
from tracked_repositories t left join (
    select repository_id, count(*)::integer as workspaces from workspace_repositories group by repository_id
) m using (repository_id)
where t.is_workspace_repo is distinct from (m.workspaces is not null)
    or t.workspace_count is distinct from coalesce(m.workspaces, 0)
    or t.priority is distinct from
        case when m.workspaces > 0 then 'high' else 'medium' end::repository_priority
"""

# Inverted flags, with a priority that never looks like an override; always the same rows.
_MAKE_WRONG = """
update tracked_repositories t
set priority = 'low', workspace_count = 7, is_workspace_repo = not t.is_workspace_repo
where t.id in (
    select id from tracked_repositories order by hashtext(id::text) limit %s
)
"""
_MAKE_MISSED = """
update tracked_repositories t
set priority = 'medium', workspace_count = 0, is_workspace_repo = false
where t.id in (
    select id from tracked_repositories where is_workspace_repo order by hashtext(id::text) limit %s
)
"""


@dataclass(frozen=True)
class Sizes:
    """Rows of the application."""

    tracked: int = 1_000_000
    memberships: int = 300_000
    workspaces: int = 2000

    @property
    def in_workspaces(self) -> int:
        """Repositories that are in a workspace; one in five of them is in two."""
        return self.memberships * 5 // 6

    def as_json(self) -> dict[str, int]:
        """The numbers, for the printed line."""
        return asdict(self)


def fill_application(connection: psycopg.Connection[Any], sizes: Sizes) -> None:
    """Make the rows; our columns need not exist yet."""
    in_two = sizes.memberships - sizes.in_workspaces
    statements = _FILL.format(**sizes.as_json(), in_workspaces=sizes.in_workspaces, in_two=in_two)
    connection.execute(statements.encode())


def fill(app: Application, sizes: Sizes) -> None:
    """Make the rows, all of them right."""
    fill_application(app.connection, sizes)
    app.connection.execute(BY_HAND)
    tidy(app)
    assert app.wrong_rows() == 0


def by_hand_in_pages(app: Application) -> float:
    """The seconds of the hand-written way that keeps a record and holds no lock for long: in pages."""
    after: UUID | None = UUID(int=0)
    began = time.perf_counter()
    while after is not None:
        row = app.connection.execute(_PAGE_BY_HAND, {"after": after, "rows": HAND_PAGE}).fetchone()
        after = row[0] if row else None
    return time.perf_counter() - began


def make_wrong(app: Application, rows: int) -> None:
    """Make this number of rows wrong, spread over all, and vacuum."""
    app.connection.execute(_MAKE_WRONG, (rows,))
    tidy(app)


def make_missed(app: Application, rows: int) -> None:
    """Make this number of rows look as if their repository's membership had been missed."""
    app.connection.execute(_MAKE_MISSED, (rows,))
    tidy(app)


def tidy(app: Application) -> None:
    """Leave the tables as autovacuum would."""
    app.connection.execute("vacuum analyze tracked_repositories, workspace_repositories")
