"""The table of failures: what each answer of PostgREST, PostgreSQL or the gateway means."""

from __future__ import annotations

import pytest

from priorityd.core.errors import KeyRefusedError, PermanentError, PriorityError, TransientError
from priorityd.core.failures import REASONS, translate


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (500, "57014", "timeout"),
        (500, "55P03", "contention"),
        (500, "40P01", "contention"),
        (409, "PT409", "contention"),
        (503, "53300", "contention"),
        (503, "57P03", "unavailable"),
        (500, "57P01", "unavailable"),
        (405, "25006", "unavailable"),
        (503, "PGRST001", "unavailable"),
        (503, "PGRST002", "unavailable"),
        (504, "PGRST003", "timeout"),
        (404, "PGRST202", "schema_cache"),
        (500, None, "unavailable"),
        (502, None, "unavailable"),
        (503, None, "unavailable"),
        (504, None, "timeout"),
        (521, None, "unavailable"),
        (429, None, "rate_limited"),
    ],
)
def test_what_may_pass_is_tried_again(status: int, code: str | None, reason: str) -> None:
    error = translate(status, code, "text", retry_after_seconds=7)
    assert isinstance(error, TransientError)
    assert (error.reason, error.retry_after_seconds) == (reason, 7)
    assert reason in REASONS


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (400, "P0001", "rejected"),
        (400, "22023", "rejected"),
        (409, "23505", "rejected"),
        (400, "23514", "rejected"),
        (404, "42883", "rejected"),
        (404, None, "rejected"),
        (404, "PT404", "not_found"),
        (400, "PGRST102", "rejected"),
        (500, "38000", "rejected"),
        (500, "XX001", "rejected"),
    ],
)
def test_what_will_not_pass_is_not(status: int, code: str | None, reason: str) -> None:
    error = translate(status, code, "text")
    assert isinstance(error, PermanentError)
    assert error.reason == reason


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, None), (403, None), (401, "PGRST301"), (401, "PGRST303"), (401, "42501"), (403, "42501")],
)
def test_a_refused_key_is_told_apart(status: int, code: str | None) -> None:
    assert isinstance(translate(status, code, "text"), KeyRefusedError)


def test_every_answer_has_an_error_and_the_message_keeps_its_code() -> None:
    for status in range(300, 600):
        for code in (None, "P0001", "99999", "PGRST999", ""):
            error = translate(status, code or None, "some text")
            assert isinstance(error, PriorityError)
            assert "some text" in str(error)
