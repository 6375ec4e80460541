"""Runs the flows of a world one after the other, and reports their outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import psycopg

from tests.support.database import Database, Server, installed
from tests.worlds.flows import FLOWS, Flow, RefusedError, words
from tests.worlds.installation import install_twice, uninstall
from tests.worlds.place import Place, place_in

Outcome = Literal["right", "refused", "wrong"]
COLUMNS: Final = ("install twice", *FLOWS, "uninstall")
_MARKS: Final[dict[Outcome, str]] = {"right": "right", "refused": "refused", "wrong": "WRONG"}


@dataclass(frozen=True)
class Cell:
    """The outcome of a flow in a world; `why` is the reason if it is not right."""

    outcome: Outcome
    why: str = ""


Row = dict[str, Cell]


@dataclass
class Matrix:
    """The rows by world."""

    rows: dict[str, Row] = field(default_factory=dict)

    def of(self, outcome: Outcome) -> list[tuple[str, str, str]]:
        """World, flow and reason of all cells with this outcome."""
        return [
            (world, flow, cell.why)
            for world, row in self.rows.items()
            for flow, cell in row.items()
            if cell.outcome == outcome
        ]

    def as_table(self) -> str:
        """The table for people: a line for each world, then the reasons."""
        width = max(map(len, self.rows))
        columns = [flow for flow in COLUMNS if any(flow in row for row in self.rows.values())]
        lines = [" " * width + "  " + "  ".join(columns)]
        for world, row in self.rows.items():
            cells = (_MARKS[row[flow].outcome].ljust(len(flow)) for flow in columns)
            lines.append(f"{world:<{width}}  " + "  ".join(cells).rstrip())
        for outcome in ("refused", "wrong"):
            reasons: dict[tuple[str, str], list[str]] = {}
            for world, flow, why in self.of(outcome):
                reasons.setdefault((world, why), []).append(flow)
            for (world, why), flows in reasons.items():
                named = "everything" if len(flows) == len(columns) else ", ".join(flows)
                lines.append(f"{outcome}: {world}, {named}: {why}")
        return "\n".join(lines)

    def as_json(self) -> str:
        """The matrix as one line of JSON."""
        counts = {outcome: len(self.of(outcome)) for outcome in _MARKS}
        cells = {
            world: {
                flow: f"{cell.outcome}: {cell.why}" if cell.why else cell.outcome
                for flow, cell in row.items()
            }
            for world, row in self.rows.items()
        }
        return json.dumps({**counts, "worlds": cells}, ensure_ascii=False)


async def run_world(server: Server, world: str, size: int, flows: tuple[str, ...] = COLUMNS) -> Row:
    """Every flow in a database of its own or on fresh rows."""
    row: Row = {}
    if "install twice" in flows:
        row["install twice"] = _about_migrations(server, world, install_twice)
    try:
        row |= await _installed_flows(server, world, size, flows)
    except psycopg.Error as error:
        # Our own refusals have a hint.
        outcome: Outcome = "refused" if error.diag.message_hint else "wrong"
        cell = Cell(outcome, f"at the installation: {error.diag.message_primary or error}")
        return dict.fromkeys(flows, cell)
    if "uninstall" in flows:
        row["uninstall"] = _about_migrations(server, world, uninstall)
    return row


def _about_migrations(server: Server, world: str, do: Callable[[Database], None]) -> Cell:
    try:
        with server.database(world=world) as database:
            do(database)
    except RefusedError as error:
        return Cell("refused", f"at the installation: {words(error)}")
    except (AssertionError, psycopg.Error) as error:
        return Cell("wrong", words(error))
    return Cell("right")


async def _installed_flows(server: Server, world: str, size: int, flows: tuple[str, ...]) -> Row:
    row: Row = {}
    with installed(server, world) as template:
        async with place_in(server, template, world, size) as place:
            for name, flow in FLOWS.items():
                if name in flows:
                    row[name] = await _cell(place, flow)
                    place.clear()
    return row


async def _cell(place: Place, flow: Flow) -> Cell:
    reasons = [text for step in flow.excused_by for text in place.findings.get(step, ())]
    if reasons:
        return Cell("refused", f"by check: {'; '.join(reasons)}")
    try:
        await flow.do(place)
    except RefusedError as error:
        return Cell("refused", words(error))
    except Exception as error:  # noqa: BLE001 - the other cells still have to be filled
        return Cell("wrong", words(error))
    return Cell("right")
