"""What Realtime's publication lacks or leaves out. No remedy may make the application's writes fail."""

from __future__ import annotations

from tests.checks.situation import Place, Situation, sql

_TABLE = "workspace_repositories"
_TAKE_OUT = f"alter publication supabase_realtime drop table {_TABLE}"
_TAKE_KEY = f"alter table {_TABLE} drop constraint {_TABLE}_pkey"
_ADD = f"alter publication supabase_realtime add table public.{_TABLE}"
_MISSING = f"not in the publication supabase_realtime: public.{_TABLE}"
_KEYLESS = "create table notes (word text); alter publication supabase_realtime add table notes;"
_MORE = "this blocks no reads or writes, but other subscribers will receive more"
_SUBSTITUTE = "give it a replica identity: this locks the table for a moment"


def _deletes_work(place: Place) -> None:
    place.stack.app.remove(place.workspace, place.repository)


def _publish_deletes(place: Place) -> None:
    place.execute("alter table notes add column id uuid primary key default gen_random_uuid()")
    place.execute("alter publication supabase_realtime set (publish = 'insert, update, delete')")


SITUATIONS = [
    Situation(
        "there is no publication",
        sql("drop publication supabase_realtime"),
        "publication",
        "there is no publication supabase_realtime, so nothing is streamed",
        1,
        "Create it with the tables that priorityd follows.",
        "create publication supabase_realtime for table",
        after=_deletes_work,
    ),
    Situation(
        "a table is not published",
        sql(_TAKE_OUT),
        "publication",
        _MISSING,
        1,
        "This blocks no reads or writes.",
        _ADD,
        after=_deletes_work,
    ),
    Situation(
        "a table is not published, and the publication is another role's",
        sql(_TAKE_OUT, "alter publication supabase_realtime owner to authenticator"),
        "publication",
        _MISSING,
        1,
        "Add the tables, as its owner authenticator.",
        _ADD,
        after=_deletes_work,
    ),
    Situation(
        "only inserts are published",
        sql("alter publication supabase_realtime set (publish = 'insert')"),
        "publication",
        "come through supabase_realtime: updates, deletes are not published",
        0,
        _MORE,
        "set (publish = 'insert, update, delete')",
        outcome="warning",
        after=_deletes_work,
    ),
    Situation(
        "deletes are not published",
        sql("alter publication supabase_realtime set (publish = 'insert, update, truncate')"),
        "publication",
        "deletes are not published",
        0,
        _MORE,
        "set (publish = 'insert, update, delete, truncate')",
        outcome="warning",
        after=_deletes_work,
    ),
    Situation(
        "deletes are not published, and would fail in one of the application's tables",
        sql("alter publication supabase_realtime set (publish = 'insert')", _KEYLESS),
        "publication",
        "updates, deletes are not published",
        0,
        "otherwise updates and deletes of these would fail: notes",
        "select * from pg_publication_tables",
        fix=_publish_deletes,
        outcome="warning",
        after=sql("insert into notes values ('a'); delete from notes where word = 'a'"),
    ),
    Situation(
        "a row filter leaves rows out",
        sql(_TAKE_OUT, f"alter publication supabase_realtime add table {_TABLE} where (id is not null)"),
        "publication",
        f"not all changes of {_TABLE} come through supabase_realtime: a row filter leaves rows out",
        0,
        _MORE,
        f"drop table public.{_TABLE}; {_ADD}",
        outcome="warning",
        after=_deletes_work,
    ),
    Situation(
        "a column list leaves the repository out",
        sql(_TAKE_OUT, f"alter publication supabase_realtime add table {_TABLE} (id)"),
        "publication",
        "a column list leaves out repository_id",
        0,
        _MORE,
        f"drop table public.{_TABLE}; {_ADD}",
        outcome="warning",
        after=_deletes_work,
    ),
    Situation(
        "a table without a primary key that is not published",
        sql(_TAKE_OUT, _TAKE_KEY),
        "publication",
        "it is not published, because its updates and deletes would fail",
        1,
        _SUBSTITUTE,
        f"set lock_timeout = '2s'; alter table public.{_TABLE} replica identity full; {_ADD}",
        after=_deletes_work,
    ),
    Situation(
        "a table without a primary key that is published",
        sql(_TAKE_KEY),
        "publication",
        "because it is published, its updates and deletes fail",
        1,
        _SUBSTITUTE,
        f"alter table public.{_TABLE} replica identity full",
        after=_deletes_work,
    ),
    Situation(
        "a table whose replica identity is NOTHING",
        sql(f"alter table {_TABLE} replica identity nothing"),
        "publication",
        "because it is published, its updates and deletes fail",
        1,
        _SUBSTITUTE,
        f"alter table public.{_TABLE} replica identity full",
        after=_deletes_work,
    ),
]
