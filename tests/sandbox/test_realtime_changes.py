"""What subscribers receive about rows: values, sizes, visibility, order."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psycopg import sql

from tests.sandbox.client import binding, connect

if TYPE_CHECKING:
    from tests.sandbox.client import Client
    from tests.support.database import Database
    from tests.support.servers import Servers

_ODD = """
create type public.mood as enum ('fine', 'so "so"');
create table public."Odd, table" (
    id uuid primary key default gen_random_uuid(), "a b" text, "50% off" text, words text[], document jsonb,
    plain json, moment timestamptz, day date, amount numeric, small smallint, ratio float8,
    flag bool default true, bytes bytea,
    mood public.mood, moods public.mood[], span int4range, address inet, grid int[][], letter char(3),
    pause interval
);
alter publication supabase_realtime add table public."Odd, table";
"""
_VALUES: list[dict[str, str]] = [
    {},
    {"a b": "Ünïcödé ✓ 😀 \\ \" ' \n\t", "letter": "x"},
    {"50% off": "100%"},
    {"words": '{a,NULL,"b,\\"c\\"",""}', "grid": "{{1,2},{3,4}}"},
    {"document": '{"a": [1, null, {"b": "1e400"}], "n": 1.50}', "plain": '{"z":1,"a":"\\u00e4"}'},
    {"document": "null", "plain": '"text"'},
    {"moment": "infinity", "day": "-infinity"},
    {"moment": "2026-02-28 23:59:59.999999+02", "day": "0044-03-15 BC", "pause": "1 year -3 days 04:05:06.7"},
    {"amount": "NaN", "ratio": "-Infinity", "small": "-32768"},
    {"amount": "123456789012345678.25", "ratio": "1e-7"},
    {"bytes": "\\x00ff7f", "mood": 'so "so"', "moods": '{fine,"so \\"so\\""}'},
    {"span": "[1,5)", "address": "::1/128"},
]


async def test_values_are_what_to_jsonb_makes_of_them(
    client: Client, sandbox: Servers, database: Database
) -> None:
    session = database.connect()
    session.execute(_ODD.encode())
    await client.join_live(binding("Odd, table"))
    for values in _VALUES:
        row = session.execute(_insert(values)).fetchone()
        assert row is not None
        change = await client.change()
        assert change["record"] == json.loads(row[0])
        types = {column["name"]: column["type"] for column in change["columns"]}
        assert types | {"words": "_text", "moods": "_mood", "grid": "_int4", "letter": "bpchar"} == types


def _insert(values: dict[str, str]) -> sql.Composed:
    """Inserts a row with these values and returns what it should look like."""
    return sql.SQL(
        'insert into public."Odd, table" ({}) values ({}) returning to_jsonb("Odd, table")::text'
    ).format(
        sql.SQL(", ").join([sql.Identifier("flag"), *map(sql.Identifier, values)]),
        sql.SQL(", ").join([sql.SQL("default"), *map(sql.Literal, values.values())]),
    )


async def test_an_untouched_value_stored_out_of_line_is_absent_not_null(
    client: Client, database: Database
) -> None:
    session = database.connect()
    session.execute("alter table workspaces alter column name set storage external")
    session.execute("alter publication supabase_realtime add table workspaces")
    await client.join_live(binding("workspaces"))
    session.execute("insert into workspaces (name) values (repeat('x', 10000))")
    assert len((await client.change())["record"]["name"]) == 10000
    session.execute("update workspaces set slug = 's'")
    record = (await client.change())["record"]
    assert record["slug"] == "s"
    assert "name" not in record
    session.execute("alter table workspaces replica identity full")
    session.execute("update workspaces set slug = 't'")
    assert len((await client.change())["record"]["name"]) == 10000


async def test_rows_above_1_mib_come_with_an_error_and_small_values_only(
    client: Client, database: Database
) -> None:
    session = database.connect()
    session.execute("alter publication supabase_realtime add table workspaces")
    await client.join_live(binding("workspaces"))
    session.execute(
        "insert into workspaces (name, slug) values (repeat('x', 1024 * 1024 + 1), %s)", ["s" * 63]
    )
    change = await client.change()
    assert change["errors"] == ["Error 413: Payload Too Large"]
    assert set(change["record"]) == {"id", "tier", "is_active", "created_at"}
    session.execute("delete from workspaces")
    change = await client.change()
    assert (change["type"], change["errors"], set(change["old_record"])) == ("DELETE", None, {"id"})


async def test_what_is_gone_before_the_poll_is_never_told_under_row_security(
    client: Client, database: Database
) -> None:
    session = database.connect()
    session.execute("alter publication supabase_realtime add table repositories, workspaces")
    session.execute("alter table workspaces disable row level security")
    await client.join_live(binding("repositories"), binding("workspaces"), topic="realtime:two")
    with session.transaction():
        for table in ("repositories", "workspaces"):
            session.execute(f"insert into {table} default values")
            session.execute(f"delete from {table}")
    types = [(change := await client.change())["table"] + " " + change["type"] for _ in range(3)]
    assert types == ["repositories DELETE", "workspaces INSERT", "workspaces DELETE"]


async def test_each_role_gets_the_columns_that_it_may_select(sandbox: Servers, database: Database) -> None:
    session = database.connect()
    session.execute("alter publication supabase_realtime add table workspaces")
    session.execute("alter table workspaces disable row level security")
    session.execute("revoke select on workspaces from anon")
    session.execute("grant select (id, name) on workspaces to anon")
    async with connect(sandbox, sandbox.anon_key) as anon, connect(sandbox) as service:
        await anon.join_live(binding("workspaces"))
        await service.join_live(binding("workspaces"))
        session.execute("insert into workspaces (name, slug) values ('n', 's')")
        narrow, wide = await anon.change(), await service.change()
    assert set(narrow["record"]) == {"id", "name"}
    assert [column["name"] for column in narrow["columns"]] == ["id", "name"]
    assert wide["record"]["slug"] == "s"


async def test_a_policy_sees_the_claims_of_the_token(sandbox: Servers, database: Database) -> None:
    session = database.connect()
    session.execute("alter publication supabase_realtime add table workspaces")
    session.execute(
        """create policy own on workspaces for select to authenticated
        using (owner_id::text = current_setting('request.jwt.claims')::jsonb ->> 'sub')"""
    )
    me, you = "1f899c29-cab1-47da-928c-f8f2cede25eb", "2f899c29-cab1-47da-928c-f8f2cede25eb"
    claims = {"role": "authenticated", "exp": int(time.time()) + 600}
    async with connect(sandbox) as mine, connect(sandbox) as yours:
        await mine.join_live(binding("workspaces"), token=sandbox.keys.sign(claims | {"sub": me}))
        await yours.join_live(binding("workspaces"), token=sandbox.keys.sign(claims | {"sub": you}))
        session.execute("insert into workspaces (owner_id) values (%s), (%s), (%s)", [you, me, None])
        assert (await mine.change())["record"]["owner_id"] == me
        assert (await yours.change())["record"]["owner_id"] == you
        assert [await mine.sync(), await yours.sync()] == [[], []]


_FILTERS = {
    "n=eq.2": [2],
    "n=neq.2": [1, 3, 10],
    "n=lt.3": [1, 2],
    "n=lte.3": [1, 2, 3],
    "n=gt.3": [10],
    "n=gte.3": [3, 10],
    "n=in.(1,10)": [1, 10],
    "word=in.(two,ten)": [2, 10],
    "word=eq.two.five=x": [],
    "word=eq.100%s": [],
}


async def test_filters_compare_by_the_columns_type(client: Client, database: Database) -> None:
    session = database.connect()
    session.execute(
        """create table numbers (n bigint primary key, word text);
        alter publication supabase_realtime add table numbers"""
    )
    reply, *_ = await client.join_live(*(binding("numbers", filter=condition) for condition in _FILTERS))
    ids = [entry["id"] for entry in reply["payload"]["response"]["postgres_changes"]]
    session.execute("insert into numbers values (1, 'one'), (2, 'two'), (3, null), (10, 'ten')")
    passing: dict[str, list[int]] = {condition: [] for condition in _FILTERS}
    for _ in range(4):
        frame = await client.receive()
        for condition, each in zip(_FILTERS, ids, strict=True):
            if each in frame["payload"]["ids"]:
                passing[condition].append(frame["payload"]["data"]["record"]["n"])
    assert passing == _FILTERS


async def test_ten_thousand_rows_of_one_transaction_arrive_complete_and_in_order(
    client: Client, database: Database
) -> None:
    session = database.connect()
    await client.join_live(binding("workspace_repositories"))
    session.execute("insert into repositories (name) select n::text from generate_series(1, 10000) n")
    session.execute("insert into workspaces (slug) values ('w')")
    session.execute(
        """insert into workspace_repositories (workspace_id, repository_id, notes)
        select w.id, r.id, r.name from repositories r, workspaces w order by r.name::int"""
    )
    notes = [(await client.change())["record"]["notes"] for _ in range(10_000)]
    assert notes == [str(n) for n in range(1, 10_001)]


async def test_the_commit_timestamp_is_the_databases_clock(client: Client, database: Database) -> None:
    session = database.connect()
    session.execute("alter publication supabase_realtime add table workspaces")
    await client.join_live(binding("workspaces"))
    session.execute("insert into workspaces default values")
    row: Any = session.execute("select created_at from workspaces").fetchone()
    change = await client.change()
    committed = datetime.fromisoformat(change["commit_timestamp"])
    assert committed.tzinfo == UTC
    assert -0.002 < (committed - row[0]).total_seconds() < 1


async def test_a_table_dropped_before_the_poll_costs_nobody_else_a_change(
    client: Client, database: Database
) -> None:
    session = database.connect()
    session.execute("create table doomed (id int primary key)")
    session.execute("alter publication supabase_realtime add table doomed, workspaces")
    await client.join_live(binding("doomed"), binding("workspaces"))
    with session.transaction():
        session.execute("insert into doomed values (1)")
        session.execute("insert into workspaces (slug) values ('kept')")
        session.execute("drop table doomed")
    assert (await client.change())["record"]["slug"] == "kept"
