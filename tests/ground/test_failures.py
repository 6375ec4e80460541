"""The table of failures: what each answer of PostgREST, PostgreSQL or the gateway means."""

from __future__ import annotations

import pytest

from priorityd.core.errors import (
    ContractError,
    DoubtfulError,
    KeyRefusedError,
    MissingGrantError,
    PermanentError,
    PriorityError,
    TransientError,
)
from priorityd.core.failures import REASONS, judge, translate


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
        (400, "0A000", "unavailable"),
        (503, "53100", "unavailable"),
        (500, "PGRST300", "unavailable"),
        (500, "PGRSTX00", "unavailable"),
        (404, None, "unavailable"),
        (407, None, "unavailable"),
        (413, None, "unavailable"),
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
    ("status", "code"), [(401, None), (401, "PGRST301"), (401, "PGRST303"), (401, "42501"), (401, "22023")]
)
def test_a_refused_key_is_told_apart(status: int, code: str | None) -> None:
    assert isinstance(translate(status, code, "text"), KeyRefusedError)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_that_is_not_supabases_is_no_word_about_the_key(status: int) -> None:
    error = translate(status, None, "Forbidden", is_supabase=False)
    assert isinstance(error, TransientError)
    assert error.reason == "unavailable"


def test_a_function_that_is_gone_is_a_stale_cache_and_a_trigger_of_the_applications_is_not() -> None:
    message = "function public.beat_workspace_priorities(p_daemon_id => uuid) does not exist"
    gone = translate(404, "42883", message, function="beat_workspace_priorities")
    assert isinstance(gone, TransientError)
    assert gone.reason == "schema_cache"
    other = translate(404, "42883", "function check_quota(uuid) does not exist", function="sync")
    assert isinstance(other, PermanentError)


def test_a_schema_that_is_not_exposed_is_told_with_what_is() -> None:
    hint = "Only the following schemas are exposed: api"
    error = translate(406, "PGRST106", "Invalid schema: public", hint=hint)
    assert isinstance(error, ContractError)
    assert hint in str(error)


def denied(message: str, hint: str = "") -> DoubtfulError:
    error = translate(403, "42501", message, hint=hint)
    assert isinstance(error, DoubtfulError)
    return error


def test_what_is_refused_while_a_harmless_call_is_not_is_that_call_alone() -> None:
    error = judge(denied("permission denied: no row of yours"), None, "service_role")
    assert isinstance(error, PermanentError)
    assert not isinstance(error, DoubtfulError)


def test_a_role_that_is_gone_is_the_key_whatever_the_words() -> None:
    refused = translate(400, "22023", "Rolle »x« existiert nicht")
    assert isinstance(refused, DoubtfulError)
    assert isinstance(judge(refused, refused, "x"), KeyRefusedError)
    assert isinstance(judge(refused, None, "x"), PermanentError), "a wrong argument"


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_a_visitors_key_is_given_nothing(role: str) -> None:
    refused = denied("permission denied for function workspace_priority_schema_version")
    assert isinstance(judge(refused, refused, role), KeyRefusedError)


@pytest.mark.parametrize(
    ("message", "hint", "statements"),
    [
        (
            "permission denied for table workspace_repositories",
            "",
            "grant select on public.workspace_repositories to service_role",
        ),
        (
            "permission denied for table tracked_repositories",
            "",
            "grant select, update on public.tracked_repositories to service_role",
        ),
        ("permission denied for schema public", "", "grant usage on schema public to service_role"),
        ("the role may not write", "grant update (priority) on t to service_role", "grant update (priority)"),
        ("permission denied for function beat_workspace_priorities", "", "select priorityd.grant_access()"),
        ("keine Berechtigung für Tabelle x", "", "grant select, update on public.tracked_repositories"),
    ],
)
def test_a_missing_privilege_is_told_as_what_to_type(message: str, hint: str, statements: str) -> None:
    refused = denied(message, hint)
    error = judge(refused, refused, "service_role")
    assert isinstance(error, MissingGrantError)
    assert statements in error.statements
    assert statements in str(error)


def test_every_answer_has_an_error_and_the_message_keeps_its_code() -> None:
    for status in range(300, 600):
        for code in (None, "P0001", "99999", "PGRST999", ""):
            error = translate(status, code or None, "some text")
            assert isinstance(error, PriorityError)
            assert "some text" in str(error)
