"""What a key says of itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from priorityd.core.database.key_kind import claims_of, why_refused, why_useless
from priorityd.daemon.sandbox.keys import Keys

NOW = datetime(2026, 1, 3, 12, 34, tzinfo=UTC)
KEYS = Keys.create()


def key(**claims: object) -> str:
    return KEYS.sign({"role": "service_role", "ref": "mine", **claims})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (KEYS.anon, "it is the anon key, which is for browsers"),
        (KEYS.publishable, "it is a publishable key, which is for browsers"),
        (key(role="authenticated"), "it is the token of a user"),
        (key(ref="yours"), "it is the key of another project, yours"),
        (key(exp=NOW.timestamp()), "it expired on 2026-01-03 at 12:34 UTC"),
        ("postgresql://postgres:secret@db.mine.supabase.co/postgres", "it is the URL of a database"),
        ("https://mine.supabase.co", "it is a URL"),
    ],
    ids=["anon", "publishable", "user", "other project", "expired", "database", "URL"],
)
def test_a_key_of_another_kind_is_named(text: str, why: str) -> None:
    assert why_useless(text, "mine", NOW) == why


@pytest.mark.parametrize(
    "text",
    [key(), key(exp=NOW.timestamp() + 1), key(role="priorityd"), KEYS.secret_keys[0], "a.b.c", "x"],
    ids=["token", "expires soon", "own role", "secret", "no token", "one letter"],
)
def test_a_key_that_may_be_right_is_tried(text: str) -> None:
    assert why_useless(text, "mine", NOW) is None


def test_elsewhere_than_on_supabase_a_reference_says_nothing() -> None:
    assert why_useless(key(ref="yours"), None, NOW) is None


@pytest.mark.parametrize("text", ["", "a", "a.b.c", "..", "a.W10.c", "a.bnVsbA.c", "ä.ö.ü"])
def test_what_is_no_token_claims_nothing(text: str) -> None:
    assert claims_of(text) == {}


def test_a_refused_key_is_described_without_being_shown() -> None:
    assert "secret key" in why_refused(KEYS.secret_keys[0])
    assert "neither" in why_refused("x")
    assert "role service_role" in why_refused(KEYS.service_role)
