"""The types that an application's keys and priorities may have: what works, and what is refused at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.types.json import Jsonb

from priorityd.daemon.migration_files import migration_files
from priorityd.daemon.sandbox.migrate import apply_migrations, undo_migrations
from tests.support.effort import some_of
from tests.support.ordered_calls import release
from tests.support.schemas import FINGERPRINT, Schema, use
from tests.support.world import Row, World

if TYPE_CHECKING:
    from uuid import UUID

pytestmark = pytest.mark.migrations


@dataclass(frozen=True)
class Workspaces:
    """The types of workspaces.id and workspace_repositories.workspace_id, and how the ids begin."""

    id: str
    workspace_id: str
    first: str

    def create(self, world: World) -> None:
        world.connection.execute(
            f"""
            create table repositories (id uuid primary key default gen_random_uuid(), owner text, name text);
            create table workspaces (id {self.id} primary key, name text, is_active boolean default true);
            create table workspace_repositories (
                id bigint generated always as identity primary key,
                workspace_id {self.workspace_id},
                repository_id uuid not null references repositories on delete cascade,
                unique (workspace_id, repository_id)
            );
            create table tracked_repositories (
                id uuid primary key default gen_random_uuid(),
                repository_id uuid unique,
                priority text default 'medium'
            );
            """.encode()
        )

    def made(self, world: World, *, number: int = 0) -> str:
        """The id of a new workspace, as text."""
        return world.value(
            f"insert into workspaces (id, name) values (%s::{self.id}, 'a workspace') returning id::text",
            f"{self.first}{number}",
        )

    def add(self, world: World, repository: UUID, workspace: str) -> None:
        world.execute(
            f"""insert into workspace_repositories (workspace_id, repository_id)
                values (%s::{self.workspace_id}, %s)""",
            workspace,
            repository,
        )


KINDS = {
    "uuid": Workspaces("uuid", "uuid", "2f6e1c1e-0000-4000-8000-00000000000"),
    "bigint": Workspaces("bigint", "bigint", "700000000000"),
    "integer beside bigint": Workspaces("bigint", "integer", "70000000"),
    "text": Workspaces("text", "text", "ws_"),
    "varchar": Workspaces("varchar(20)", "varchar(20)", "ws_"),
    "texts of uuids": Workspaces("uuid", "text", "2f6e1c1e-0000-4000-8000-00000000000"),
}


@pytest.fixture(params=some_of(KINDS, "bigint", "texts of uuids"))
def kind(request: pytest.FixtureRequest) -> Workspaces:
    found = request.param
    assert isinstance(found, Workspaces)
    return found


def test_workspaces_may_be_named_by_uuids_integers_and_texts(bare: World, kind: Workspaces) -> None:
    kind.create(bare)
    early = bare.tracked()
    first, second = (kind.made(bare, number=number) for number in range(2))
    kind.add(bare, early, first)
    apply_migrations(bare.connection)
    assert bare.row(early) == Row("high", True, 1), "by the first fill"
    repository, alone = bare.tracked(), bare.tracked()
    for workspace in (first, second):
        kind.add(bare, repository, workspace)
    assert bare.sync(repository, alone)["changed"] == 1
    assert bare.row(repository) == Row("high", True, 2)
    bare.execute("delete from workspace_repositories where workspace_id::text = %s", first)
    assert bare.sweep()["changed"] == 2
    kind.add(bare, early, second)
    assert sum(page["changed"] for page in bare.resync(1)) == 1
    assert [bare.row(one) for one in (early, repository, alone)] == [
        Row("high", True, 1), Row("high", True, 1), Row("medium", False, 0)
    ]  # fmt: skip
    memberships = bare.call("check_workspace_priorities")["memberships"]
    assert (memberships["inlined"], memberships["memberships"]) == (True, 2)

    explained = bare.call("explain_repository_priority", repository)
    assert explained["workspaces"] == [{"id": second, "name": "a workspace", "counts": True}]
    bare.execute("update workspaces set is_active = false")
    assert bare.sweep()["changed"] == 2, "whatever the types, one that is switched off holds nothing"
    explained = bare.call("explain_repository_priority", repository)
    assert [workspace["counts"] for workspace in explained["workspaces"]] == [False]

    apply_migrations(bare.connection)
    undo_migrations(bare.connection)


def test_each_workspace_has_its_turns_whatever_names_it(bare: World, kind: Workspaces) -> None:
    kind.create(bare)
    apply_migrations(bare.connection)
    number = count()
    lines: list[UUID] = []
    for workspace in (kind.made(bare, number=number) for number in range(2)):
        repository = bare.tracked()
        kind.add(bare, repository, workspace)
        bare.sync(repository)
        lines.append(repository)
    jobs = [{"repository_id": str(line), "data": {"n": next(number)}} for line in lines for _ in range(2)]
    assert bare.call("queue_repository_jobs", Jsonb(jobs), "reviews")["queued"] == 4
    released: list[str] = []
    for _ in range(4):
        released += [job["repository_id"] for job in release(bare, limit=1)["jobs"]]
    first, second = map(str, lines)
    assert released in ([first, second, first, second], [second, first, second, first])
    assert bare.call("check_job_lanes")["found"] == 0
    assert bare.call("list_ordered_jobs")["found"] == 4


def test_the_type_may_change_before_the_next_set(bare: World) -> None:
    KINDS["integer beside bigint"].create(bare)
    apply_migrations(bare.connection)
    bare.execute("alter table workspace_repositories alter column workspace_id type text")
    apply_migrations(bare.connection)
    repository = bare.tracked()
    KINDS["text"].add(bare, repository, "another")
    bare.sweep()
    assert bare.row(repository) == Row("high", True, 1)


REFUSED = {
    "tracked id bigint": (
        Schema(last="alter table tracked_repositories drop column id, add id bigint primary key"),
        "tracked_repositories.id is of type bigint",
    ),
    "tracked repository bigint": (
        Schema(
            last="alter table tracked_repositories drop column repository_id, add repository_id bigint unique"
        ),
        "tracked_repositories.repository_id is of type bigint",
    ),
    "tracked repository missing": (
        Schema(last="alter table tracked_repositories drop column repository_id"),
        "tracked_repositories.repository_id is missing",
    ),
    "repository of a membership text": (
        Schema(last="alter table workspace_repositories drop column repository_id, add repository_id text"),
        "workspace_repositories.repository_id is of type text",
    ),
    "workspace json": (
        Schema(last="alter table workspace_repositories drop column workspace_id, add workspace_id json"),
        "workspace_repositories.workspace_id is of type json",
    ),
    "tracked repositories a view": (
        Schema(
            last="alter table tracked_repositories rename to everything;"
            " create view tracked_repositories as select * from everything"
        ),
        "needs tables, not views or foreign tables: tracked_repositories",
    ),
    "memberships a view": (
        Schema(
            last="alter table workspace_repositories rename to everything;"
            " create view workspace_repositories as select * from everything"
        ),
        "needs tables, not views or foreign tables: workspace_repositories",
    ),
    "priority generated": (
        Schema(
            priority=None,
            last="alter table tracked_repositories"
            " add priority text generated always as (coalesce(id::text, 'low')) stored",
        ),
        "tracked_repositories.priority is generated",
    ),
    "flag of numbers": (
        Schema(last="alter table tracked_repositories add is_workspace_repo integer default 0"),
        "tracked_repositories.is_workspace_repo is of type integer",
    ),
    "count of texts": (
        Schema(last="alter table tracked_repositories add workspace_count text"),
        "tracked_repositories.workspace_count is of type text",
    ),
    "priority integer": (Schema(priority="integer"), "the type integer, which is neither an enum nor a text"),
    "priority of a domain over an enum": (
        Schema(
            "create type level as enum ('high', 'medium', 'low'); create domain priority_level as level",
            "priority_level",
        ),
        "the type priority_level, a domain over the enum level",
    ),
}


@pytest.mark.parametrize(("schema", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_t_be_worked_with_is_refused_before_anything_is_made(
    bare: World, schema: Schema, complaint: str
) -> None:
    """By the first statement of the first file: nothing is left behind, with a transaction or without."""
    schema.create(bare.connection)
    before = bare.connection.execute(FINGERPRINT.encode()).fetchall()
    with pytest.raises(psycopg.Error, match=complaint) as refused:
        bare.execute(first_statement())
    assert refused.value.diag.message_hint
    assert bare.connection.execute(FINGERPRINT.encode()).fetchall() == before


@pytest.mark.parametrize(
    ("first", "flag", "number"),
    [
        ("select", "boolean", "bigint"),
        ("select", "boolean", "smallint"),
        ("create domain yes as boolean; create domain number as integer", "yes", "number"),
    ],
)
def test_the_columns_may_be_there_already_with_types_that_serve(
    bare: World, first: str, flag: str, number: str
) -> None:
    columns = f"add is_workspace_repo {flag}, add workspace_count {number}"
    Schema(first, last=f"alter table tracked_repositories {columns}").create(bare.connection)
    member = bare.tracked()
    bare.add(member)
    for _ in range(2):
        apply_migrations(bare.connection)
    assert bare.row(member) == Row("high", True, 1)
    assert bare.resync(1)[0]["changed"] == 0
    use(bare)
    undo_migrations(bare.connection)


def first_statement() -> str:
    """The first unit of the first file, as psql sends it."""
    return migration_files()[0].read_text().split("\n$tables$;")[0] + "\n$tables$"


# The application's table of jobs, whatever it is.

COLUMNS = {
    "id": "uuid primary key default gen_random_uuid()",
    "type": "text",
    "payload": "jsonb",
    "status": "text default 'queued'",
    "created_at": "timestamptz default now()",
    "started_at": "timestamptz",
    "completed_at": "timestamptz",
    "failed_at": "timestamptz",
    "repository_id": "uuid",
}
JOB_TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "an id that counts": ("select", {"id": "bigint generated always as identity primary key"}),
    "a repository by name": ("select", {"repository_id": "text"}),
    "times without a zone": (
        "select",
        dict.fromkeys(("created_at", "started_at", "completed_at", "failed_at"), "timestamp"),
    ),
    "times of two kinds": ("select", {"completed_at": "timestamp"}),
    "times that are dates": ("select", {"failed_at": "date"}),
    "times that are numbers": ("select", {"failed_at": "bigint"}),
    "a status that counts": ("select", {"status": "integer default 0"}),
    "a status with words of its own": (
        "create type job_status as enum ('waiting', 'done')", {"status": "job_status default 'waiting'"}
    ),
    "a status of a domain": (
        "create type job_status as enum ('queued', 'completed'); create domain job_state as job_status",
        {"status": "job_state"},
    ),
    "a payload that is text": ("select", {"payload": "text"}),
    "no columns of ours": ("select", dict.fromkeys(COLUMNS, "")),
    "a type that counts": ("select", {"type": "integer"}),
}  # fmt: skip
USUAL_JOB_TABLES = ("an id that counts", "times of two kinds", "a status of a domain", "no columns of ours")


@pytest.mark.parametrize(("first", "columns"), some_of(JOB_TABLES, *USUAL_JOB_TABLES))
def test_no_migration_fails_on_a_table_of_jobs(bare: World, first: str, columns: dict[str, str]) -> None:
    Schema().create(bare.connection)
    defined = [f"{name} {kind}" for name, kind in (COLUMNS | columns).items() if kind]
    bare.connection.execute(f"{first}; create table background_jobs ({', '.join(defined)})".encode())
    before = bare.connection.execute(FINGERPRINT.encode()).fetchall()
    for _ in range(2):
        apply_migrations(bare.connection)
    use(bare)
    check = bare.call("check_workspace_priorities")
    assert check["missing_indexes"] == [], "nothing is advised that would fail"
    poll = bare.call("poll_background_jobs", "2f6e1c1e-0000-4000-8000-0000000000aa")
    assert poll["available"] or "background_jobs" in poll["reason"]
    assert bare.call("count_ordered_jobs")["jobs"] == bare.call("list_ordered_jobs")["jobs"] == []
    repository = bare.tracked()
    assert bare.call("cancel_ordered_jobs", p_repository_id=repository)["cancelled"] == 0
    jobs = Jsonb([{"repository_id": str(repository)}])
    if not {"id", "repository_id", "payload", "status"} & columns.keys():
        queued = bare.call("queue_repository_jobs", jobs, "reviews")
        assert (queued["queued"], len(queued["refused"])) in ((1, 0), (0, 1))
        assert len(release(bare)["jobs"]) == queued["queued"]
        bare.execute("delete from background_jobs")
    elif {"id", "repository_id", "payload"} & columns.keys():
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="can't hold ordered jobs: "):
            bare.call("queue_repository_jobs", jobs, "reviews")
        assert release(bare)["jobs"] == [], "there is nothing to release"
    undo_migrations(bare.connection)
    assert bare.connection.execute(FINGERPRINT.encode()).fetchall() == before


def test_no_migration_fails_on_a_view_of_jobs(bare: World) -> None:
    Schema().create(bare.connection)
    bare.execute("create view background_jobs as select null::uuid as id, now() as created_at")
    apply_migrations(bare.connection)
    use(bare)
    assert bare.call("check_workspace_priorities")["missing_indexes"] == []
    undo_migrations(bare.connection)


def test_a_table_of_jobs_that_has_become_readable_wants_its_indexes(bare: World) -> None:
    Schema().create(bare.connection)
    defined = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    bare.execute(
        f"create table background_jobs ({defined.replace('failed_at timestamptz', 'failed_at date')})"
    )
    apply_migrations(bare.connection)
    bare.execute("alter table background_jobs alter column failed_at type timestamptz")
    poller = "2f6e1c1e-0000-4000-8000-0000000000aa"
    assert "apply them again" in bare.call("poll_background_jobs", poller)["reason"]
    apply_migrations(bare.connection)
    assert bare.call("poll_background_jobs", poller)["available"]
