"""A project's directory of migrations, with ours written into it as an operator does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from priorityd.core.database.migrations import gather
from priorityd.daemon.cli.migrations import migrations_command, read_file
from priorityd.daemon.migration_files import migration_files
from tests.support.database import superuser_beside

if TYPE_CHECKING:
    from pathlib import Path

    from priorityd.core.database.migrations import Kind
from tests.support.world import World

SET = re.compile(r"(start_unit\(\s*'[^']+', |c_set constant integer := )(\d+)")
"""The number of its set, in each place of a file that has it."""
TEXTS = gather([read_file(file) for file in migration_files()])
LAST_FUNCTION = re.findall(r"create or replace function (\w+\.\w+)\(", TEXTS["functions"])[-1]
FUNCTIONS = """select n.nspname || '.' || p.proname, pg_get_function_identity_arguments(p.oid), p.prosrc
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('public', 'priorityd') order by 1, 2"""


def write_into(directory: Path) -> dict[Kind, Path]:
    """What `priorityd migrations --into` writes into a directory that lacks all of it."""
    before = set(directory.iterdir())
    assert migrations_command(directory, check=False) == 0
    tables, functions = sorted(set(directory.iterdir()) - before)
    assert tables.name.endswith("_tables.sql")
    assert functions.name.endswith("_functions.sql")
    return {"tables": tables, "functions": functions}


def functions(world: World) -> list[tuple[str, str, str]]:
    """All functions: name, arguments and source."""
    return world.connection.execute(FUNCTIONS.encode()).fetchall()


def refuse_last_function(world: World) -> None:
    """Have the last function of the set fail to be made, until `allow_last_function`."""
    statements = f"""create schema in_the_way;
        create function in_the_way.refuse() returns event_trigger language plpgsql as $$
        begin
            if exists (
                select from pg_event_trigger_ddl_commands() c
                where starts_with(c.object_identity, '{LAST_FUNCTION}(')
            ) then
                raise exception 'refused for a test';
            end if;
        end
        $$;
        create event trigger in_the_way on ddl_command_end
            when tag in ('CREATE FUNCTION') execute function in_the_way.refuse();"""
    with superuser_beside(world.connection) as superuser:
        superuser.execute(statements.encode())


def allow_last_function(world: World) -> None:
    """Take out of the way what `refuse_last_function` has put there."""
    with superuser_beside(world.connection) as superuser:
        superuser.execute(b"drop event trigger in_the_way; drop schema in_the_way cascade;")
