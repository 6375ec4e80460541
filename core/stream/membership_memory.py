"""Remembers the repository of each membership row, so that the repository is known when the row is deleted.

With row level security on, a DELETE has only the row's primary key, and so has the old row of an UPDATE. The
repository is known if the row's insert was seen; otherwise a sweep must find it.

The memory is only a hint: it is cleared whenever changes may have been missed, and if it is wrong
nevertheless, the next periodic sweep finds the row.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Final
from uuid import UUID

from priorityd.core.stream.hints import Hint

MAX_ROWS: Final = 10_000
"""About four megabytes; the rows seen last are the most likely to be removed soon."""


class MembershipMemory:
    """See the module's docstring."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._repositories: OrderedDict[str, UUID] = OrderedDict()

    def complete(self, hint: Hint) -> Hint:
        """The hint of a change, completed with the remembered repository if it names none."""
        row_id = hint.membership_id
        if row_id is None:
            return hint
        before = self._repositories.pop(row_id, None)
        after = hint.held_repository_id
        if after is not None:
            self._remember(row_id, after)
        if not hint.needs_sweep or before is None:
            return hint
        named = tuple(dict.fromkeys((*hint.repository_ids, before)))
        # If the change is an UPDATE, it may be the new row that does not name its repository.
        return replace(hint, repository_ids=named, needs_sweep=hint.operation != "DELETE" and after is None)

    def __len__(self) -> int:
        """The number of rows remembered."""
        return len(self._repositories)

    def clear(self) -> None:
        """Forget everything, because changes may have been missed."""
        self._repositories.clear()

    def _remember(self, row_id: str, repository_id: UUID) -> None:
        self._repositories[row_id] = repository_id
        if len(self._repositories) > self._max_rows:
            self._repositories.popitem(last=False)
