"""Which look-ups are cached, and for how long."""

from __future__ import annotations

from uuid import uuid4

from priorityd.core.library.membership_cache import MembershipCache


def test_a_cached_look_up_ends_with_its_time_or_with_a_change() -> None:
    cache: MembershipCache[int] = MembershipCache(ttl_seconds=300)
    key = uuid4()
    cache.put(key, 2, 0.0, cache.generation)
    assert (cache.get(key, 299.9), cache.get(key, 300.0)) == (2, None)
    cache.put(key, 2, 0.0, cache.generation)
    cache.drop(key)
    assert cache.get(key, 1.0) is None


def test_a_look_up_overtaken_by_a_change_is_not_remembered() -> None:
    cache: MembershipCache[int] = MembershipCache()
    key, generation = uuid4(), 0
    cache.drop(key)
    cache.put(key, 2, 0.0, generation)
    assert cache.get(key, 0.0) is None


def test_the_cache_is_bounded() -> None:
    cache: MembershipCache[int] = MembershipCache(max_entries=2)
    keys = [uuid4() for _ in range(3)]
    for key in keys:
        cache.put(key, 1, 0.0, cache.generation)
    assert [cache.get(key, 0.0) for key in keys] == [None, 1, 1]
