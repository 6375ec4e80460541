"""The watch for secrets finds them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import secrecy

KEY = "eyJhbGciOi.eyJyb2xlIjoi.c2lnbmF0dXJl"
SECRETS = secrecy.secrets_in(
    {"SUPABASE_SECRET_KEY": KEY, "SUPABASE_URL": "http://127.0.0.1", "API_KEY": "no"}
)


@pytest.fixture
def leaks_forgotten() -> Iterator[None]:
    before = secrecy.LEAKS.copy()
    yield
    secrecy.LEAKS.clear()
    secrecy.LEAKS.update(before)


def test_secrets_are_known_by_the_names_of_their_settings() -> None:
    assert set(SECRETS) == {KEY, "c2lnbmF0dXJl"}


@pytest.mark.parametrize("text", [f"GET /?apikey={KEY}", "…c2lnbmF0dXJl…", '{"key": "' + KEY + '"}'])
@pytest.mark.usefixtures("leaks_forgotten")
def test_a_secret_is_found_and_not_shown(text: str) -> None:
    with pytest.raises(AssertionError) as found:
        secrecy.look("a log line", text, SECRETS)
    assert "c2lnbmF0dXJl" not in str(found.value)
    assert secrecy.LEAKS["a log line"] == 1


@pytest.mark.usefixtures("leaks_forgotten")
def test_a_secret_on_a_command_line_is_found() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", KEY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            # Before that it may still be a copy of this process.
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(AssertionError, match="cmdline"):
                secrecy.look_at_process(process.pid, SECRETS)
        finally:
            process.kill()


def test_what_holds_none_passes() -> None:
    secrecy.look("a log line", "started", SECRETS)
    secrecy.look_at_process(os.getpid(), SECRETS)
    assert secrecy.LOOKED_AT["a log line"] > 0
