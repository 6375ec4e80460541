"""Repositories as operators name them: by id or by `owner/name`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias
from uuid import UUID

from priorityd.core.errors import PermanentError
from priorityd.daemon.database.rows import FoundRepository
from priorityd.daemon.database.store import Store

Words: TypeAlias = UUID | str
"""An id, or a name that is still to be looked up."""

_AT_ONCE: Final = 5_000
_SHOWN: Final = 5
"""Of many alike, so many are named."""


async def find_repository(store: Store, word: Words) -> FoundRepository:
    """The one that is meant. Raises `PermanentError` if there is none, or a name is that of several."""
    (found,) = await find_repositories(store, [word])
    return found


async def find_repositories(store: Store, words: Sequence[Words]) -> list[FoundRepository]:
    """Those that are meant, in their order. Raises `PermanentError` for what is unknown or not unique."""
    known = await _look_up(store, list(dict.fromkeys(words)))
    if wrong := [_why_not(word, known[word]) for word in known if len(known[word]) != 1]:
        more = f"; and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        raise PermanentError("; ".join(wrong[:_SHOWN]) + more, reason="not_found")
    return [known[word][0] for word in words]


async def _look_up(store: Store, words: Sequence[Words]) -> dict[Words, list[FoundRepository]]:
    known: dict[Words, list[FoundRepository]] = {word: [] for word in words}
    for page in _pages(words):
        ids = [word for word in page if isinstance(word, UUID)]
        names = [word for word in page if isinstance(word, str)]
        for each in await store.find_repositories(ids, names):
            for word in {each.repository_id, each.name} & set(page):
                if word is not None:
                    known[word].append(each)
    return known


def _pages(words: Sequence[Words]) -> Iterator[Sequence[Words]]:
    return (words[start : start + _AT_ONCE] for start in range(0, len(words), _AT_ONCE))


def _why_not(word: Words, found: Iterable[FoundRepository]) -> str:
    ids = [str(each.repository_id) for each in found]
    if ids:
        more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
        return (
            f"{word} is the name of {len(ids):,} repositories, {', '.join(ids[:_SHOWN])}{more}: "
            "say by its id which one"
        )
    return f"no repository has the {'id' if isinstance(word, UUID) else 'name'} {word}"
