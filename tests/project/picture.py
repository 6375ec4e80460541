"""`python -m tests.project.picture`: which room imports which, and whether any arrow goes up.

One line for each room of `core/` and `daemon/`, in the order of the import contracts, with the rooms that it
knows. A climb is an import of a room that stands above; there is none while `lint-imports` is green.
"""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("core", "daemon")
_WAY_OF_A_CHANGE: Final = (
    "daemon/stream/connection.py",
    "core/stream/hints.py",
    "daemon/stream/listener.py",
    "daemon/apply/intake.py",
    "core/apply/work_queue.py",
    "daemon/apply/worker.py",
    "daemon/database/store.py",
    "migrations/20250103000500_add_workspace_priority_sync.sql",
    "migrations/20250103000400_add_workspace_priority_rules.sql",
)
"""From the socket to the row, in the order in which a change passes them."""


def order_of_rooms() -> list[str]:
    """The rooms from the top down, as pyproject.toml says it; what is in none is the ground."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    rooms: list[str] = []
    for layer in layers:
        for module in layer.split(" : "):
            room = module.split(".")[2]
            if room not in rooms and (ROOT / "daemon" / room).is_dir():
                rooms.append(room)
    return [*rooms, "ground"]


def room_of(module: str) -> str | None:
    """The room of `priorityd.daemon.stream.listener` is `stream`."""
    parts = module.split(".")
    if parts[0] != "priorityd" or len(parts) < 3 or parts[1] not in FOLDERS:
        return None
    if parts[2] in ("app", "parts", "inngest_side"):
        return "app"
    return parts[2] if (ROOT / parts[1] / parts[2]).is_dir() else "ground"


def imports() -> Iterator[tuple[str, str]]:
    """Pairs of rooms, the one that imports first."""
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            own = room_of(".".join(("priorityd", *file.relative_to(ROOT).with_suffix("").parts)))
            for node in ast.walk(ast.parse(file.read_text())):
                other = room_of(node.module or "") if isinstance(node, ast.ImportFrom) else None
                if own is not None and other is not None and own != other:
                    yield own, other


def arrows() -> dict[str, set[str]]:
    """The rooms that each room knows."""
    known: dict[str, set[str]] = defaultdict(set)
    for own, other in imports():
        known[own].add(other)
    return known


def climbs() -> list[tuple[str, str]]:
    """Imports of a room that stands above."""
    order = ["cli", "app", *[room for room in order_of_rooms() if room not in ("cli", "app")]]
    place = {room: number for number, room in enumerate(order)}
    return sorted(
        (own, other)
        for own, others in arrows().items()
        for other in others
        if own in place and other in place and place[other] < place[own]
    )


def way_of_a_change() -> tuple[str, ...]:
    """The files that a change passes."""
    return _WAY_OF_A_CHANGE


def main() -> None:
    known = arrows()
    for room in ["cli", "app", *[room for room in order_of_rooms() if room not in ("cli", "app")]]:
        print(f"{room:<10} knows {', '.join(sorted(known[room])) or 'nobody'}")
    print(f"arrows: {sum(map(len, known.values()))}, climbs: {climbs() or 'none'}")
    print("the way of a change:", *way_of_a_change(), sep="\n    ")


if __name__ == "__main__":
    main()
