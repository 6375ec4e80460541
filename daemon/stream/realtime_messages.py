"""Makes the `realtime` package parse changes in a fraction of the time.

For every message the package tries one model after another, although the field `event` names the kind, and
formats the message for a debug log that is usually off. That is most of the cost of a change between the
socket and the work queue. Here the same models are selected by that field, and a change has a short `repr`.
The package accepts and refuses the same messages as before.

It keeps its parser in a module variable; there is no public way to replace it.
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
    Annotated[Union[_KINDS], Field(discriminator="event")]  # noqa: UP007 - a union of types in a tuple can't be written otherwise
)


def read_messages_by_event() -> None:
    """Install this parser for every client in the process."""
    vars(client)["ServerMessageAdapter"] = MESSAGES_BY_EVENT
