"""Which variables `priorityd check` calls unknown: those in places that are read, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorityd.daemon.cli.check.variables import variables_finding


def directory_with(path: Path, *names: str) -> str:
    path.mkdir()
    for name in names:
        (path / name).write_text("1")
    return str(path)


def test_only_the_secrets_directory_that_is_read_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    read = directory_with(tmp_path / "read", "PRIORITYD_LOGLEVEL")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", read)
    monkeypatch.setenv("PRIORITYD_SECRETS_DIR", directory_with(tmp_path / "other", "PRIORITYD_ZZZ"))
    assert variables_finding().text == (
        f"unknown: PRIORITYD_LOGLEVEL in {read} (did you mean PRIORITYD_LOG_LEVEL?)"
    )


def test_known_variables_are_fine_wherever_they_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRIORITYD_SECRETS_DIR", directory_with(tmp_path / "read", "PRIORITYD_BATCH_SIZE"))
    (tmp_path / ".env").write_text("PRIORITYD_LOG_LEVEL=info\n")
    assert variables_finding().outcome == "ok"
