"""Which migrations this version needs."""

from __future__ import annotations

import pytest

from priorityd.core.database.schema import MIGRATION_SET, SchemaVersion, demand_version
from priorityd.core.errors import ContractError


def test_an_older_set_is_refused_and_a_newer_one_if_it_says_so() -> None:
    demand_version(SchemaVersion(MIGRATION_SET, 1, ()))
    demand_version(SchemaVersion(MIGRATION_SET + 5, MIGRATION_SET, ()))
    with pytest.raises(ContractError, match="priorityd migrations --into"):
        demand_version(SchemaVersion(MIGRATION_SET - 1, 1, ()))
    with pytest.raises(ContractError, match="upgrade priorityd"):
        demand_version(SchemaVersion(MIGRATION_SET + 1, MIGRATION_SET + 1, ()))


def test_a_line_that_was_left_out_is_known_by_its_units() -> None:
    version = SchemaVersion(1, 1, ("20250103000000 columns", "20250103000800 functions"))
    names = ("20250103000000_a.sql", "20250103000800_b.sql", "20250103000900_c.sql")
    assert version.lacks(names) == ("20250103000900_c.sql",)
