"""A large application: 1,000,000 tracked rows, and 300,000 memberships of 250,000 of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tests.support.application import Application

_FILL = """
insert into workspaces (name) select 'workspace ' || n from generate_series(1, 2000) n;
insert into repositories (id) select gen_random_uuid() from generate_series(1, {tracked});
insert into tracked_repositories (repository_id) select id from repositories;
create table picked as
select id, row_number() over () as n from repositories limit {in_workspaces};
create table places as select id, row_number() over () as n from workspaces;
insert into workspace_repositories (workspace_id, repository_id)
select p.id, r.id from picked r join places p on p.n = 1 + r.n % 2000;
insert into workspace_repositories (workspace_id, repository_id)
select p.id, r.id from picked r join places p on p.n = 1 + (r.n + 37) % 2000
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
"""What somebody would write who had to do it once: it writes the wrong rows only, and no record."""

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

# Flags turned round, with a priority that never looks like an override; always the same rows.
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

    @property
    def in_workspaces(self) -> int:
        """Repositories that are in a workspace; one in five of them is in two."""
        return self.memberships * 5 // 6

    def as_json(self) -> dict[str, int]:
        """For the printed line."""
        return asdict(self)


def fill(app: Application, sizes: Sizes) -> None:
    """Make the rows, all of them right."""
    in_two = sizes.memberships - sizes.in_workspaces
    statements = _FILL.format(tracked=sizes.tracked, in_workspaces=sizes.in_workspaces, in_two=in_two)
    app.connection.execute(statements.encode())
    app.connection.execute(BY_HAND)
    tidy(app)
    assert app.wrong_rows() == 0


def make_wrong(app: Application, rows: int) -> None:
    """Put so many rows wrong, spread over all; what that leaves behind is vacuumed away."""
    app.connection.execute(_MAKE_WRONG, (rows,))
    tidy(app)


def make_missed(app: Application, rows: int) -> None:
    """Let so many rows be as if nobody had heard that a workspace has their repository."""
    app.connection.execute(_MAKE_MISSED, (rows,))
    tidy(app)


def tidy(app: Application) -> None:
    """As autovacuum would leave the tables."""
    app.connection.execute("vacuum analyze tracked_repositories, workspace_repositories")
