"""The sandbox's fixed SQL, read from the files in `sql/`.

SQL that depends on the tables (casts to a column's type, the call of a function) is composed where it is
used, with `psycopg.sql`, which quotes every identifier and literal.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return (files(__package__) / "sql" / f"{name}.sql").read_text()
