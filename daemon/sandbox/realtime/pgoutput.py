"""Decodes PostgreSQL's `pgoutput` messages (protocol version 1). Pure.

The format is described in PostgreSQL's manual, "Logical Replication Message Formats". A transaction consists
of Begin, the Relations not yet described in this decoding session, row messages, and Commit. Values are text
as written by the type's output function. A value that is stored out of line and was not changed by an UPDATE
is not in the log: it is `UNCHANGED`, which differs from null. Truncate, Origin, Type and Message carry no
rows and are skipped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Unchanged(Enum):
    """Type of the marker `UNCHANGED`."""

    MARKER = "unchanged"


UNCHANGED: Final = Unchanged.MARKER
Value = str | None | Unchanged


@dataclass(frozen=True)
class Column:
    """A column as described in the log; `is_key` if it belongs to the replica identity."""

    name: str
    type_oid: int
    is_key: bool


@dataclass(frozen=True)
class Relation:
    """A table as described in the log."""

    oid: int
    schema: str
    table: str
    replica_identity: str
    columns: tuple[Column, ...]


class Kind(Enum):
    """What happened to a row."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True)
class RowChange:
    """One row message.

    `old` is the whole old row if the replica identity is full, only the key columns if they changed or the
    row was deleted (`old_is_key_only`), and None if the log has nothing.
    """

    kind: Kind
    relation: Relation
    new: tuple[Value, ...] | None
    old: tuple[Value, ...] | None
    old_is_key_only: bool
    committed_at: datetime


class _Reader:
    """A cursor over one message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def bytes(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise ValueError("pgoutput message ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def char(self) -> str:
        return self.bytes(1).decode("ascii")

    def int16(self) -> int:
        return int(struct.unpack("!h", self.bytes(2))[0])

    def int32(self) -> int:
        return int(struct.unpack("!i", self.bytes(4))[0])

    def uint32(self) -> int:
        return int(struct.unpack("!I", self.bytes(4))[0])

    def int64(self) -> int:
        return int(struct.unpack("!q", self.bytes(8))[0])

    def string(self) -> str:
        end = self._data.index(b"\0", self._at)
        text = self._data[self._at : end].decode()
        self._at = end + 1
        return text

    def value(self) -> Value:
        match self.char():
            case "n":
                return None
            case "u":
                return UNCHANGED
            case "t":
                return self.bytes(self.int32()).decode()
            case other:
                raise ValueError(f"unknown kind of value {other!r} in a pgoutput tuple")

    def row(self) -> tuple[Value, ...]:
        return tuple(self.value() for _ in range(self.int16()))


class Decoder:
    """Decodes the messages of one decoding session, in which each relation is described before its rows."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._committed_at = _POSTGRES_EPOCH

    def decode(self, messages: Iterable[bytes]) -> Iterator[RowChange]:
        """The row changes in these messages, in the order of the log."""
        for message in messages:
            change = self._message(_Reader(message))
            if change is not None:
                yield change

    def _message(self, reader: _Reader) -> RowChange | None:
        match reader.char():
            case "B":
                self._begin(reader)
            case "R":
                self._relation(reader)
            case "I":
                return self._insert(reader)
            case "U":
                return self._update(reader)
            case "D":
                return self._delete(reader)
        return None

    def _begin(self, reader: _Reader) -> None:
        reader.int64()  # the final LSN
        self._committed_at = _POSTGRES_EPOCH + timedelta(microseconds=reader.int64())

    def _relation(self, reader: _Reader) -> None:
        oid, schema, table, identity = reader.uint32(), reader.string(), reader.string(), reader.char()
        columns = tuple(_column(reader) for _ in range(reader.int16()))
        # An empty schema name means pg_catalog.
        self._relations[oid] = Relation(oid, schema or "pg_catalog", table, identity, columns)

    def _insert(self, reader: _Reader) -> RowChange:
        relation = self._relations[reader.uint32()]
        _expect(reader.char(), "N")
        return RowChange(Kind.INSERT, relation, reader.row(), None, False, self._committed_at)

    def _update(self, reader: _Reader) -> RowChange:
        relation = self._relations[reader.uint32()]
        part, old = reader.char(), None
        if part in "KO":
            old = reader.row()
            _expect(reader.char(), "N")
        return RowChange(Kind.UPDATE, relation, reader.row(), old, part == "K", self._committed_at)

    def _delete(self, reader: _Reader) -> RowChange:
        relation = self._relations[reader.uint32()]
        part = reader.char()
        _expect(part, "K", "O")
        return RowChange(Kind.DELETE, relation, None, reader.row(), part == "K", self._committed_at)


def _column(reader: _Reader) -> Column:
    flags, name, type_oid = reader.bytes(1)[0], reader.string(), reader.uint32()
    reader.int32()  # type modifier
    return Column(name, type_oid, bool(flags & 1))


def _expect(found: str, *allowed: str) -> None:
    if found not in allowed:
        raise ValueError(f"unexpected part {found!r} in a pgoutput row message")
