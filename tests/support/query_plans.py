"""How PostgreSQL answers a query, and what the functions ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explain(world: World, query: str) -> list[dict[str, Any]]:
    (answer,) = world.value(f"explain (analyze, buffers, format json) {query}")
    return list(nodes(answer["Plan"]))


def source_of(world: World, function: str) -> str:
    return world.value("select prosrc from pg_proc where proname = %s", function)
