"""Where settings come from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from priorityd.core.errors import ConfigurationError
from priorityd.daemon.settings import Settings, load_settings

NOBODY = 65534


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


def test_each_secret_is_hidden() -> None:
    keys: dict[str, Any] = {
        name: f"{name}-0123"
        for name, field in Settings.model_fields.items()
        if "SecretStr" in str(field.annotation)
    }
    keys["inngest_signing_key"] = "signkey-test-0123"
    assert set(Settings(supabase_url="https://x.supabase.co", **keys).secrets) == set(keys.values())


@pytest.mark.parametrize(
    "url", ["https://a b.supabase.co", "https://a.supabase.co\u200b", "https://a\tb.co", "https://:word@a.co"]
)
def test_what_no_url_may_hold_is_told_and_not_asked_for(url: str) -> None:
    with pytest.raises(ValidationError, match="must be the project's URL"):
        Settings(supabase_url=url, supabase_key="a.b.c")


def test_blanks_around_a_url_are_none_of_it() -> None:
    assert Settings(supabase_url=" https://a.supabase.co/ ", supabase_key="a.b.c").supabase_url == (
        "https://a.supabase.co"
    )


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:1"), ("::1", "http://[::1]:1")])
def test_the_endpoints_have_a_url_at_any_address(host: str, url: str) -> None:
    settings = Settings(
        supabase_url="https://a.supabase.co", supabase_key="a.b.c", http_host=host, http_port=1
    )
    assert settings.http_url == url
    assert httpx.URL(settings.http_url).host == host


def a_file(path: Path) -> None:
    path.write_text("")


def a_directory_with_a_file_of_another_encoding(path: Path) -> None:
    path.mkdir()
    (path / "SUPABASE_URL").write_bytes(b"caf\xe9")


def a_directory_with_a_directory(path: Path) -> None:
    (path / "SUPABASE_URL").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "CREDENTIALS_DIRECTORY: can't read {}: No such file or directory"),
        (a_file, "CREDENTIALS_DIRECTORY: can't read {}: Not a directory"),
        (a_directory_with_a_file_of_another_encoding, "{}/SUPABASE_URL is not UTF-8 text"),
        (a_directory_with_a_directory, '"{}/SUPABASE_URL" but found a directory'),
    ],
    ids=["missing", "a file", "not UTF-8", "a directory in it"],
)
def test_secrets_that_cant_be_read_are_a_bad_configuration(
    make: Callable[[Path], None], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    make(secrets)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secrets))
    with pytest.raises(ConfigurationError, match=re.escape(words.format(secrets))):
        load_settings()


@contextmanager
def as_anybody() -> Iterator[None]:
    """Without root's privilege to read everything."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """One that anybody may look into."""
    with TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize("closed", ["secrets/SUPABASE_URL", "secrets", ".env"])
def test_what_may_not_be_read_is_a_bad_configuration(
    closed: str, public_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(public_directory)
    (public_directory / "secrets").mkdir()
    for file in ("secrets/SUPABASE_URL", ".env"):
        (public_directory / file).write_text("")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "secrets")
    (public_directory / closed).chmod(0)
    with as_anybody(), pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert str(refused.value).endswith(f"can't read {closed}: Permission denied")


def test_a_directory_of_secrets_that_nobody_named_may_be_closed(
    public_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("priorityd.daemon.settings._DEFAULT_SECRETS", public_directory / "secrets")
    monkeypatch.setenv("SUPABASE_URL", "https://x.supabase.co")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", "a-key")
    (public_directory / "secrets").mkdir(mode=0)
    with as_anybody():
        assert load_settings().supabase_url == "https://x.supabase.co"


def test_an_env_file_that_is_no_text_is_a_bad_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"SUPABASE_URL=caf\xe9")
    with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8 text"):
        load_settings()


@pytest.mark.parametrize("key", ["a.b.\x01c", "a\0.\0b\0", "a.b.\x7f"])
def test_a_key_has_no_characters_that_can_not_be_sent(key: str) -> None:
    with pytest.raises(ValidationError, match="must be the key alone"):
        Settings(supabase_url="https://a.supabase.co", supabase_key=key)
