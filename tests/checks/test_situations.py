"""Every entry of the table: what is found, what it says to do, and that this helps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checks.forks import priorityd_forks
from tests.checks.page import PAGE, page
from tests.checks.run import place_on, run_in
from tests.checks.situation import Situation
from tests.checks.table import SITUATIONS
from tests.support.database import Database


@pytest.fixture(scope="module")
def forks() -> Iterator[Path]:
    with priorityd_forks() as path:
        yield path


@pytest.mark.situations
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
async def test_what_is_said_of(situation: Situation, database: Database, forks: Path, tmp_path: Path) -> None:
    async with place_on(database, tmp_path) as place:
        await run_in(place, situation, forks)


def test_the_document_lists_the_situations() -> None:
    assert PAGE.read_text() == page(), "python -m tests.checks.page"


def test_no_two_situations_have_one_name() -> None:
    names = [situation.name for situation in SITUATIONS]
    assert len(set(names)) == len(names)
