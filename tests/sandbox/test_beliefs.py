"""The table of what the stand-ins believe names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROW = re.compile(r"^\| (?!statement|---)(.+) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_every_belief_names_who_says_so_and_a_test_that_is_there() -> None:
    tests = "\n".join(path.read_text() for path in HERE.glob("test_*.py"))
    rows = ROW.findall((HERE / "BELIEFS.md").read_text())
    assert len(rows) > 15
    for statement, source, holding in rows:
        assert "`" in source or "itself" in source, statement
        named = re.findall(r"`(.+?)`", holding)
        assert named or holding.startswith("the same"), statement
        for name in named:
            assert (ROOT / name).is_file() if name.endswith(".py") else f"def test_{name}(" in tests, name
