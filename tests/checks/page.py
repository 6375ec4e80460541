"""`python -m tests.checks.page`: writes the situations into docs/check.md, below what is said there."""

from __future__ import annotations

from typing import Final

from tests.checks import addresses, database, inngest, keys, publication, settings, stream, writes
from tests.checks.situation import TYPED, Situation
from tests.support.repository import ROOT

PAGE: Final = ROOT / "docs" / "check.md"
_MARK: Final = "<!-- What follows is written by `python -m tests.checks.page`. -->\n"
_HEAD: Final = """\
| situation | step | message (excerpt) | exit code | remedy |
|---|---|---|---|---|"""
_PARTS: Final = {
    "Settings": settings.SITUATIONS,
    "The URL, and what answers there": addresses.SITUATIONS,
    "The key": keys.SITUATIONS,
    "The database": database.SITUATIONS,
    "Writing tracked rows": writes.SITUATIONS,
    "The publication": publication.SITUATIONS,
    "The change stream": stream.SITUATIONS,
    "Inngest": inngest.SITUATIONS,
}


def page() -> str:
    """The whole document."""
    parts = [PAGE.read_text().partition(_MARK)[0] + _MARK]
    for title, situations in _PARTS.items():
        parts.append("\n".join([f"### {title}\n", _HEAD, *map(_line, situations)]) + "\n")
    return "\n".join(parts)


def _line(situation: Situation) -> str:
    says = f"{situation.outcome}: {situation.says.strip(' :;')}".replace("|", "\\|")
    remedy = "a command" if situation.fix == TYPED else "an instruction"
    return f"| {situation.name} | {situation.step} | {says} | {situation.code} | {remedy} |"


if __name__ == "__main__":
    PAGE.write_text(page())
