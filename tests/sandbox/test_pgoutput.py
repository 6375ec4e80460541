"""The decoder against messages written by hand from the manual, and against PostgreSQL's own."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from priorityd.daemon.sandbox.realtime.pgoutput import UNCHANGED, Decoder, Kind, RowChange, Value

if TYPE_CHECKING:
    from collections.abc import Iterator


_RELATION = (
    b"R" + struct.pack("!I", 7) + b"public\0t\0d" + struct.pack("!h", 2)
    + b"\1id\0" + struct.pack("!Ii", 20, -1) + b"\0name\0" + struct.pack("!Ii", 25, -1)
)  # fmt: skip
_BEGIN = b"B" + struct.pack("!qqI", 1, 1_500_000, 99)
_COMMIT = b"C" + struct.pack("!bqqq", 0, 1, 2, 1_500_000)


def row(*values: Value) -> bytes:
    """A tuple as pgoutput writes it."""
    parts = [struct.pack("!h", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            data = value.encode()
            parts.append(b"t" + struct.pack("!i", len(data)) + data)
    return b"".join(parts)


def decode(*messages: bytes) -> list[RowChange]:
    """What these messages say, in a transaction on the relation above."""
    return list(Decoder().decode([_BEGIN, _RELATION, *messages, _COMMIT]))


_OID = struct.pack("!I", 7)
_VALUES = st.one_of(st.none(), st.just(UNCHANGED), st.text())


@given(new=st.tuples(_VALUES, _VALUES), old=st.tuples(_VALUES, _VALUES))
def test_every_tuple_comes_back_as_it_was_written(new: tuple[Value, Value], old: tuple[Value, Value]) -> None:
    inserted, updated, moved, replaced, deleted = decode(
        b"I" + _OID + b"N" + row(*new),
        b"U" + _OID + b"N" + row(*new),
        b"U" + _OID + b"K" + row(*old) + b"N" + row(*new),
        b"U" + _OID + b"O" + row(*old) + b"N" + row(*new),
        b"D" + _OID + b"K" + row(*old),
    )
    assert (inserted.kind, inserted.new, inserted.old) == (Kind.INSERT, new, None)
    assert (updated.kind, updated.new, updated.old) == (Kind.UPDATE, new, None)
    assert (moved.new, moved.old, moved.old_is_key_only) == (new, old, True)
    assert (replaced.new, replaced.old, replaced.old_is_key_only) == (new, old, False)
    assert (deleted.kind, deleted.new, deleted.old) == (Kind.DELETE, None, old)


def test_a_change_knows_its_table_and_when_it_was_committed() -> None:
    (change,) = decode(b"I" + _OID + b"N" + row("1", "n"))
    assert (change.relation.schema, change.relation.table, change.relation.replica_identity) == (
        "public",
        "t",
        "d",
    )
    assert [(column.name, column.is_key) for column in change.relation.columns] == [
        ("id", True),
        ("name", False),
    ]
    assert change.committed_at == datetime(2000, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


def test_messages_without_rows_are_skipped() -> None:
    truncate = b"T" + struct.pack("!ib", 1, 0) + _OID
    assert decode(truncate, b"Y" + _OID + b"public\0mood\0", b"O" + struct.pack("!q", 1) + b"origin\0") == []


@pytest.mark.parametrize("message", [b"I" + _OID + b"X", b"I" + _OID + b"N" + row("1", "n")[:-1], b"I"])
def test_what_is_no_message_is_an_error(message: bytes) -> None:
    with pytest.raises(ValueError, match="pgoutput"):
        decode(message)


@pytest.fixture(scope="module")
def log(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A session with a logical slot on a table of text columns."""
    server = request.getfixturevalue("server")
    with server.database() as database, psycopg.connect(database.url, autocommit=True) as session:
        session.execute("create table t (id serial primary key, value text, words text[], doc jsonb)")
        session.execute("create publication p for table t")
        session.execute("select pg_create_logical_replication_slot('pgoutput_test', 'pgoutput', true)")
        yield session
        session.execute("select pg_drop_replication_slot('pgoutput_test')")


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(text=st.one_of(st.none(), _TEXT), words=st.one_of(st.none(), st.lists(st.one_of(st.none(), _TEXT))))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_postgresql_logs_is_what_was_inserted(
    text: str | None, words: list[str | None] | None, log: psycopg.Connection[tuple[Any, ...]]
) -> None:
    statement = "insert into t (value, words) values (%s, %s) returning value, words::text"
    written = log.execute(statement, [text, words]).fetchone()
    cursor = log.cursor(binary=True)
    cursor.execute(
        "select data from pg_logical_slot_get_binary_changes('pgoutput_test', null, null, "
        "'proto_version', '1', 'publication_names', 'p')"
    )
    (change,) = Decoder().decode([data for (data,) in cursor.fetchall()])
    assert change.new is not None
    assert change.new[1:3] == written
