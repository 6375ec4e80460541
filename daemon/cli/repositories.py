"""Finds repositories by what operators call them: an id or `owner/name`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias
from uuid import UUID

from priorityd.core.errors import PermanentError
from priorityd.daemon.cli.output import SHOWN, listed
from priorityd.daemon.database.rows import FoundRepository
from priorityd.daemon.database.store import Store

IdOrName: TypeAlias = UUID | str
"""An id, or a name that has yet to be looked up."""

_PAGE_SIZE: Final = 5_000


async def find_repository(store: Store, wanted: IdOrName) -> FoundRepository:
    """Find one repository. Raises `PermanentError` if it is unknown or its name is ambiguous."""
    (found,) = await find_repositories(store, [wanted])
    return found


async def find_repositories(store: Store, wanted: Sequence[IdOrName]) -> list[FoundRepository]:
    """Find repositories, in the order given. Raises `PermanentError` if any is unknown or ambiguous."""
    known = await _look_up(store, list(dict.fromkeys(wanted)))
    if wrong := [_why_not(each, known[each]) for each in known if len(known[each]) != 1]:
        more = f"; and {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
        raise PermanentError("; ".join(wrong[:SHOWN]) + more, reason="not_found")
    return [known[each][0] for each in wanted]


async def _look_up(store: Store, wanted: Sequence[IdOrName]) -> dict[IdOrName, list[FoundRepository]]:
    known: dict[IdOrName, list[FoundRepository]] = {each: [] for each in wanted}
    for page in _pages(wanted):
        ids = [each for each in page if isinstance(each, UUID)]
        names = [each for each in page if isinstance(each, str)]
        for found in await store.find_repositories(ids, names):
            for key in {found.repository_id, found.name} & set(page):
                if key is not None:
                    known[key].append(found)
    return known


def _pages(wanted: Sequence[IdOrName]) -> Iterator[Sequence[IdOrName]]:
    return (wanted[start : start + _PAGE_SIZE] for start in range(0, len(wanted), _PAGE_SIZE))


def _why_not(wanted: IdOrName, found: Iterable[FoundRepository]) -> str:
    ids = [str(each.repository_id) for each in found]
    if ids:
        return f"{wanted} is the name of {len(ids):,} repositories; use the id of one: {listed(ids)}"
    return f"no repository has the {'id' if isinstance(wanted, UUID) else 'name'} {wanted}"
