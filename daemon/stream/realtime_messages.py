"""Lets the `realtime` package read a change in a fraction of the time.

For every message that comes it tries one model after the other, though each kind names itself in the field
`event`, and it writes every message out for a debug log that nobody keeps: most of what a change costs
between the socket and the work queue. Here the same models are told apart by that field, and a change is
written out in a few words. What is read and what is refused is the same.

The package keeps its reader in a variable of a module; there is no public way to give it another.
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
    """From now on every client of this process reads so."""
    vars(client)["ServerMessageAdapter"] = MESSAGES_BY_EVENT
