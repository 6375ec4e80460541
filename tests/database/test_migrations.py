"""The migrations written into a project: their text, and when there are any."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from priorityd.core.database.migrations import Kind, Package, Plan, SqlFile, gather, plan

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

FIRST = SqlFile(
    "20250103000000_add_rows.sql",
    """\
-- What rows are.
-- Safe to apply again.

-- The table.
do $tables$
begin
    create table if not exists rows (id integer);
end
$tables$;

-- It isn't read
-- without this; really.

do $functions$
declare
    v_name text := 'rows';
begin
    -- It counts.
    create or replace function count_rows() returns bigint language sql as $$
        -- All of them.
        select count(*) from rows;
    $$;
end
$functions$;
""",
)
SECOND = SqlFile(
    "20250103000200_add_more.sql",
    """\
-- More of it.
do $functions$
begin
    perform count_rows();
end;
$functions$;
do $tables$
begin
    create index if not exists by_id on rows (id);
end
$tables$;
""",
)
TABLES = """\
-- 20250103000000_add_rows.sql
--
-- What rows are.
-- Safe to apply again.

-- The table.
do $tables$
begin
    create table if not exists rows (id integer);
end
$tables$;


-- 20250103000200_add_more.sql
--
-- More of it.

do $tables$
begin
    create index if not exists by_id on rows (id);
end
$tables$;
"""
FUNCTIONS = """\
do $functions$
begin

-- 20250103000000_add_rows.sql

declare
    v_name text := 'rows';
begin
    create or replace function count_rows() returns bigint language sql as $$
        -- All of them.
        select count(*) from rows;
    $$;
end;


-- 20250103000200_add_more.sql

begin
    perform count_rows();
end;

end
$functions$;
"""
TEXTS = gather([FIRST, SECOND])
PACKAGE = Package("1.2.0+local.3", 7, TEXTS)
TABLES_FILE = "20260304050607_priorityd_1_2_0_local_3_tables.sql"
FUNCTIONS_FILE = "20260304050608_priorityd_1_2_0_local_3_functions.sql"


def planned(*files: SqlFile, package: Package = PACKAGE, now: datetime = NOW) -> Plan:
    written = [file for file in files if "_priorityd_" in file.name]
    return plan([file.name for file in files], written, package, now)


def named(name: str) -> SqlFile:
    return SqlFile(name, "")


def of_set(number: int, *, texts: dict[Kind, str] = TEXTS) -> tuple[SqlFile, ...]:
    """What another version has written a year ago."""
    return planned(package=Package("0.9", number, texts), now=NOW.replace(year=2025)).new


def test_tables_stay_units_and_functions_become_one_without_the_comments_between_them() -> None:
    assert TEXTS == {"tables": TABLES, "functions": FUNCTIONS}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- Nothing.\n", "does not end with a unit"),
        ("do $tables$\nbegin\nend\n$tables$;\n-- And so on.\n", "does not end with a unit"),
        ("select 1;\n", "neither a comment nor a unit: select 1;"),
        ("do $tables$\nbegin\nend\n$functions$;\n", "not closed"),
        ("do $tables$\nbegin\n    -- $tables$\nend\n$tables$;\n", "inside of a unit"),
        ("do $tables$\nbegin\nend\n-- of it\n$tables$;\n", "last line is not its end"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        gather([SqlFile("a.sql", text)])


def test_an_empty_directory_gets_tables_then_functions() -> None:
    tables, functions = planned().new
    assert (tables.name, functions.name) == (TABLES_FILE, FUNCTIONS_FILE)
    kinds: list[tuple[SqlFile, Kind]] = [(tables, "tables"), (functions, "functions")]
    for file, kind in kinds:
        header, _, sql = file.text.partition("\n\n")
        assert f"-- priorityd migration set 7: {kind}" in header.splitlines()
        assert "1.2.0+local.3" in header
        assert sql == TEXTS[kind]


@pytest.mark.parametrize(
    ("last", "first_stamp"),
    [
        ("20250103000000_add_workspace_priority_tracking.sql", "20260304050607"),
        ("20260304050607_now.sql", "20260304050608"),
        ("20291231235959_future.sql", "20300101000000"),
        ("20291231235959_a_directory", "20300101000000"),
        ("20260304_by_date.sql", "20260305000000"),
        ("0001_counted.sql", "20260304050607"),
        ("99_no_migration", None),
        ("20261399000000_no_time.sql", None),
        ("2026113_no_date.sql", None),
        ("99991231235959_the_end.sql", None),
        ("99991231235958_nearly.sql", None),
        ("remote_schema.sql", "20260304050607"),
    ],
)
def test_what_is_written_comes_after_all_that_is_there(last: str, first_stamp: str | None) -> None:
    todo = planned(named("20240101000000_first.sql"), named(last), named("README.md"))
    if first_stamp is None:
        assert not todo.new
        assert not todo.up_to_date
        assert f"no time stamp can follow {last.partition('_')[0]}_" in todo.words[0]
        return
    assert todo.new[0].name.startswith(first_stamp)
    if last[0].isdigit():
        names = [last, *(file.name for file in todo.new)]
        assert names == sorted(names)


def test_the_second_time_nothing_is_written() -> None:
    assert planned(*planned().new) == Plan(up_to_date=True)


def test_another_release_with_the_same_set_writes_nothing() -> None:
    assert planned(*of_set(7)) == Plan(up_to_date=True)


def test_a_checkout_with_other_line_ends_is_the_same() -> None:
    assert planned(*(SqlFile(file.name, file.text.replace("\n", "\r\n")) for file in of_set(7))).up_to_date


def test_a_newer_set_is_written_as_a_whole_beside_the_older_ones() -> None:
    there = (*of_set(5), named("20260101000000_theirs.sql"))
    assert [file.name for file in planned(*there).new] == [TABLES_FILE, FUNCTIONS_FILE]
    assert planned(*there, *planned(*there).new) == Plan(up_to_date=True)


def test_a_set_of_a_newer_priorityd_is_left_alone_and_serves() -> None:
    todo = planned(*of_set(5), *of_set(8))
    assert (todo.new, todo.up_to_date) == ((), True)
    assert "set 8" in todo.words[0]


def test_functions_that_were_never_written_are_added() -> None:
    tables, _ = of_set(7)
    (functions,) = planned(tables).new
    assert functions.name == "20260304050607_priorityd_1_2_0_local_3_functions.sql"
    assert planned(tables, functions).up_to_date


def test_functions_without_their_tables_are_told() -> None:
    todo = planned(of_set(7)[1])
    assert (todo.new, todo.up_to_date) == ((), False)
    assert "without its tables" in todo.words[0]


def test_what_was_edited_by_hand_is_told_and_left_alone() -> None:
    tables, functions = of_set(7)
    edited = SqlFile(functions.name, functions.text.replace("select count(*)", "select 1"))
    todo = planned(tables, edited)
    assert (todo.new, todo.up_to_date) == ((), False)
    assert [functions.name in word for word in todo.words] == [True]


def test_the_same_number_with_another_text_is_told() -> None:
    todo = planned(*of_set(7, texts=gather([FIRST])))
    assert (todo.new, todo.up_to_date, len(todo.words)) == ((), False, 2)


def test_an_edited_file_of_an_older_set_is_history() -> None:
    tables, functions = of_set(5)
    assert len(planned(SqlFile(tables.name, f"{tables.text}-- edited\n"), functions).new) == 2
