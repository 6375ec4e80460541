"""All entries, and how they are shown."""

from __future__ import annotations

from tests.checks import addresses, database, inngest, keys, publication, settings, stream, writes
from tests.checks.run import Row
from tests.checks.situation import TYPED

SITUATIONS = [
    *settings.SITUATIONS,
    *addresses.SITUATIONS,
    *keys.SITUATIONS,
    *database.SITUATIONS,
    *writes.SITUATIONS,
    *publication.SITUATIONS,
    *stream.SITUATIONS,
    *inngest.SITUATIONS,
]

_COLUMNS = ("situation", "finding", "remedy", "exit code", "good after")


def headline() -> str:
    """The first lines of the table, in Markdown."""
    return f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"


def as_line(row: Row) -> str:
    """A row of it. A remedy that was typed is shown as it was printed, one that was followed in its words."""
    finding = row.finding
    said = f"{finding['step']}: {finding['text']}" if finding else "not as it must be"
    typed = row.situation.fix == TYPED
    remedy = f"`{finding.get('command')}`" if typed else finding.get("remedy", "")
    after = ("yes, typed" if typed else "yes, by hand") if row.good_after else "no"
    cells = (row.situation.name, said, remedy, str(row.code), after)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
