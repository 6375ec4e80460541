"""The migrations as files."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

from priorityd.core.database.schema import MIGRATION_SET
from priorityd.daemon.migration_files import migration_files, migrations_dir
from tests.sql.project import SET

FILES = migration_files()
RECORDED = Path(__file__).with_name("migration_sets.json")
_DEFINED = re.compile(
    r"create (?:or replace )?(?:function|table|view|type|trigger|index)(?: if not exists)? ([a-z_.]+)",
    re.IGNORECASE,
)


def test_a_change_of_any_file_makes_a_new_set() -> None:
    """Once a set is released, raise its number in every file and in `core.database.schema`, and record it."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in FILES)).hexdigest()
    assert json.loads(RECORDED.read_text()) == {str(MIGRATION_SET): digest}


def test_every_unit_says_of_which_set_it_is() -> None:
    for file in FILES:
        text = file.read_text()
        numbers = {int(match[2]) for match in SET.finditer(text)}
        assert numbers == {MIGRATION_SET}, file.name
        units = len(re.findall(r"^do \$", text, re.MULTILINE))
        assert len(SET.findall(text)) == units, f"{file.name}: a unit without a guard"
        assert file.name[:14] in text, "a file's units are named by its time stamp"


def test_everything_is_defined_once() -> None:
    defined = Counter(name for file in FILES for name in _DEFINED.findall(file.read_text()))
    assert len(defined) > 100
    assert [name for name, count in defined.items() if count > 1] == []


def test_the_files_are_ascii_and_their_strings_have_no_backslashes() -> None:
    """A database may be in LATIN1, and a role may have standard_conforming_strings off."""
    for file in (*FILES, *sorted(migrations_dir().glob("*/*.sql"))):
        text = file.read_text()
        assert text.isascii(), file.name
        commands = re.sub(r"^\\.*$|\\gexec", "", text, flags=re.MULTILINE)
        assert "\\" not in commands, file.name
