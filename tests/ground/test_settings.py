"""Where settings come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorityd.daemon.settings import load_settings


def test_settings_come_from_secret_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SUPABASE_URL").write_text("https://x.supabase.co/\n")
    (tmp_path / "SUPABASE_SECRET_KEY").write_text("sb_secret_abc\n")
    for name in ("SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    settings = load_settings()
    assert settings.supabase_url == "https://x.supabase.co"
    assert settings.supabase_key.get_secret_value() == "sb_secret_abc"
    assert "sb_secret_abc" not in repr(settings)


def test_the_environment_wins_over_secret_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SUPABASE_URL").write_text("https://file.supabase.co")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SUPABASE_URL", "https://environment.supabase.co")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", "a.b.c")
    assert load_settings().supabase_url == "https://environment.supabase.co"
