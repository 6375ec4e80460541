"""Lets the `realtime` package read a change in a fraction of the time.

It tries one model after the other for every message, though each kind names itself in the field `event`, and
it formats every message for a debug log that is usually off: most of the cost of a change between the socket
and the work queue. Here the same models are selected by that field, and a change is formatted briefly. What
is accepted and what is refused stays the same.

The package keeps its parser in a module variable; there is no public way to replace it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Union, get_args

from pydantic import Field, TypeAdapter
from realtime._async import client
from realtime.message import PostgresChangesMessage, ServerMessage


class _Change(PostgresChangesMessage):
    def __repr__(self) -> str:
        return f"<a change for {self.topic}>"


_KINDS: Final[Any] = tuple(
    _Change if kind is PostgresChangesMessage else kind for kind in get_args(ServerMessage)
)
MESSAGES_BY_EVENT: Final[TypeAdapter[ServerMessage]] = TypeAdapter(
    Annotated[Union[_KINDS], Field(discriminator="event")]  # noqa: UP007 - there is no other way to name a union of these
)


def read_messages_by_event() -> None:
    """Install it for every client of this process."""
    vars(client)["ServerMessageAdapter"] = MESSAGES_BY_EVENT
