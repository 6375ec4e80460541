"""The variables of Inngest's SDK mean the same here as to the SDK, wherever they come from."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import inngest
import pytest

from priorityd.core.errors import ConfigurationError
from priorityd.daemon.inngest.client import make_client
from priorityd.daemon.inngest.sender import open_event_sender
from priorityd.daemon.logs import configure_logs
from priorityd.daemon.settings import load_settings
from tests.support.daemon_process import PLAIN
from tests.support.event_api import EVENT_KEY
from tests.support.inngest import StandIn, numbered

VARIABLES = {
    "INNGEST_DEV": ("1", "0", "true", "http://127.0.0.1:9001"),
    "INNGEST_BASE_URL": ("http://127.0.0.1:9002",),
    "INNGEST_API_BASE_URL": ("http://127.0.0.1:9003",),
    "INNGEST_EVENT_API_BASE_URL": ("http://127.0.0.1:9004",),
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in (*VARIABLES, "INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY", "INNGEST_ENV"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SUPABASE_URL", "https://project.supabase.co")
    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_of_supabase")


def facts(client: inngest.Inngest) -> tuple[Any, ...]:
    return (
        client.is_production,
        client.api_origin.rstrip("/"),
        client.event_api_origin.rstrip("/"),
        client.event_key,
        client.signing_key,
        client.env,
    )


@pytest.mark.parametrize("keys", [{}, {"INNGEST_EVENT_KEY": "ek", "INNGEST_SIGNING_KEY": "signkey-test-12"}])
def test_the_sdk_is_told_what_it_would_have_read_itself(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, str]
) -> None:
    # Each client would read all certificate authorities, and there are some hundreds of clients.
    monkeypatch.setattr("ssl.create_default_context", lambda **_: PLAIN)
    for variable, value in (keys | {"INNGEST_ENV": "branch-7"}).items():
        monkeypatch.setenv(variable, value)
    for values in itertools.product(*((None, *choices) for choices in VARIABLES.values())):
        for variable, chosen in zip(VARIABLES, values, strict=True):
            monkeypatch.delenv(variable, raising=False)
            if chosen is not None:
                monkeypatch.setenv(variable, chosen)
        expected = facts(inngest.Inngest(app_id="app"))
        told = facts(make_client(load_settings()))
        # In development mode the SDK puts its own key in place of none, when it sends.
        placeholder = (*told[:3], None, *told[4:]) if told[3] == "NO_EVENT_KEY_SET" else told
        assert placeholder == expected, values


def test_values_from_a_file_reach_the_sdk(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "INNGEST_EVENT_KEY=from-file\nINNGEST_BASE_URL=https://inngest.example.com/\n"
    )
    client = make_client(load_settings())
    assert (client.event_key, client.event_api_origin) == ("from-file", "https://inngest.example.com")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("INNGEST_BASE_URL", "inngest.example.com"),
        ("INNGEST_EVENT_API_BASE_URL", "https://user:secret@example.com"),
        ("INNGEST_DEV", "ftp://127.0.0.1"),
        ("INNGEST_EVENT_KEY", "two words"),
        ("INNGEST_SIGNING_KEY", "signkey-test-no-hexadecimal"),
        ("INNGEST_SIGNING_KEY", "x"),
    ],
)
def test_a_bad_value_names_its_variable_and_not_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable) as raised:
        load_settings()
    assert value not in str(raised.value)


@pytest.mark.usefixtures("logs_restored")
async def test_no_secret_reaches_a_log_even_when_everything_is_logged(
    event_api: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = event_api.settings()
    try:
        configure_logs("json", "debug", settings.secrets)
        for chatty in ("httpx", "httpcore"):
            logging.getLogger(chatty).setLevel(logging.DEBUG)
        async with open_event_sender(settings) as sender:
            await sender.send(numbered(1))
    finally:
        for chatty in ("httpx", "httpcore"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    logged = capfd.readouterr().err
    assert "[redacted]" in logged
    assert EVENT_KEY not in logged
