"""`priorityd migrations` on real directories."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from priorityd.core.database.migrations import Package
from priorityd.core.errors import PriorityError
from priorityd.daemon.cli.migrations import bring_up_to_date

PACKAGE = Package("1.0", 2, {"tables": "-- Tables: what is\n", "functions": "-- Functions: what it does\n"})
OLDER = Package("0.9", 1, PACKAGE.texts)


def files(directory: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(directory.iterdir())}


def priorityd(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "priorityd", "migrations", *arguments],
        capture_output=True, check=False, text=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip


def test_writes_two_files_and_nothing_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring_up_to_date(tmp_path, PACKAGE, check=False) == 0
    written = files(tmp_path)
    paths, words = capsys.readouterr()
    assert paths.splitlines() == [str(tmp_path / name) for name in written]
    assert "supabase db push --linked" in words
    assert [re.sub(r"^\d{14}", "", name) for name in written] == [
        "_priorityd_1_0_tables.sql",
        "_priorityd_1_0_functions.sql",
    ]

    assert bring_up_to_date(tmp_path, PACKAGE, check=False) == 0
    assert files(tmp_path) == written
    assert capsys.readouterr() == ("", "")


def test_a_check_writes_nothing_and_says_by_its_exit_code_whether_anything_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring_up_to_date(tmp_path, PACKAGE, check=True) == 1
    assert files(tmp_path) == {}
    paths, words = capsys.readouterr()
    assert paths == ""
    assert f"priorityd migrations --into {tmp_path}" in words

    bring_up_to_date(tmp_path, PACKAGE, check=False)
    capsys.readouterr()
    assert bring_up_to_date(tmp_path, PACKAGE, check=True) == 0
    assert capsys.readouterr() == ("", "")


def test_an_upgrade_leaves_the_older_files_as_they_are(tmp_path: Path) -> None:
    bring_up_to_date(tmp_path, OLDER, check=False)
    older = files(tmp_path)
    assert bring_up_to_date(tmp_path, PACKAGE, check=True) == 1
    assert bring_up_to_date(tmp_path, PACKAGE, check=False) == 0
    both = files(tmp_path)
    assert len(both) == 4
    assert list(both)[:2] == list(older)
    assert older.items() <= both.items()


def test_a_newer_set_serves_an_older_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bring_up_to_date(tmp_path, PACKAGE, check=False)
    there = files(tmp_path)
    for check in (True, False):
        capsys.readouterr()
        assert bring_up_to_date(tmp_path, OLDER, check=check) == 0
        assert "set 2 is there" in capsys.readouterr().err
    assert files(tmp_path) == there


def test_an_edited_file_is_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bring_up_to_date(tmp_path, PACKAGE, check=False)
    edited = next(tmp_path.glob("*_functions.sql"))
    edited.write_text(edited.read_text().replace("does", "did"))
    there = files(tmp_path)
    for check in (True, False):
        assert bring_up_to_date(tmp_path, PACKAGE, check=check) == 1
        assert edited.name in capsys.readouterr().err
    assert files(tmp_path) == there


def test_what_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    # Not even the superuser may write there.
    with pytest.raises(PriorityError, match=r"^/proc/self/fd"):
        bring_up_to_date(Path("/proc/self/fd"), PACKAGE, check=False)


def test_what_is_no_directory_is_refused_and_so_is_none(tmp_path: Path) -> None:
    file = tmp_path / "file.sql"
    file.touch()
    for wrong, code in ((tmp_path / "absent" / "too", 1), (file, 2)):
        done = priorityd("--into", wrong)
        assert (done.returncode, done.stdout) == (code, "")
        assert str(wrong) in done.stderr
    done = priorityd()
    assert (done.returncode, "--into" in done.stderr) == (2, True)
    assert files(tmp_path) == {"file.sql": ""}


def test_the_directory_is_made_if_only_it_is_missing(tmp_path: Path) -> None:
    """`supabase init` makes none."""
    directory = tmp_path / "migrations"
    assert priorityd("--into", directory, "--check").returncode == 1
    assert not directory.exists()
    assert priorityd("--into", directory).returncode == 0
    assert len(files(directory)) == 2


def test_without_other_migrations_it_says_which_tables_must_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring_up_to_date(tmp_path, PACKAGE, check=False)
    assert "workspace_repositories must exist" in capsys.readouterr().err

    another = tmp_path / "another"
    another.mkdir()
    (another / "20240101000000_application.sql").touch()
    bring_up_to_date(another, PACKAGE, check=False)
    assert "must exist" not in capsys.readouterr().err


def test_needs_no_settings(tmp_path: Path) -> None:
    assert priorityd("--into", tmp_path, "--check").returncode == 1
    done = priorityd("--into", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / name) for name in files(tmp_path)]
    assert priorityd("--into", tmp_path, "--check").returncode == 0
