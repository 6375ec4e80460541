"""What a URL itself shows, and what answers there mean."""

from __future__ import annotations

import pytest

from priorityd.core.database.project_address import judge_address, judge_answer, reference_of

PROJECT = "https://abcdefghijklmnopqrst.supabase.co"


@pytest.mark.parametrize(
    ("url", "right"),
    [
        (f"{PROJECT}/rest/v1", PROJECT),
        (f"{PROJECT}/whatever", PROJECT),
        ("https://supabase.example.com/rest/v1", "https://supabase.example.com"),
        ("https://example.com/supabase/realtime/v1/websocket", "https://example.com/supabase"),
        ("https://supabase.com/dashboard/project/abcdefghijklmnopqrst/sql/1", PROJECT),
        ("https://app.supabase.com/project/abcdefghijklmnopqrst", PROJECT),
        ("https://db.abcdefghijklmnopqrst.supabase.co", PROJECT),
        ("https://supabase.com/dashboard/org/acme", ""),
    ],
)
def test_a_wrong_url_is_told_with_the_right_one(url: str, right: str) -> None:
    fault = judge_address(url)
    assert fault is not None
    assert fault.url == right


@pytest.mark.parametrize(
    "url", [PROJECT, "http://127.0.0.1:54321", "http://kong:8000", "https://example.com/supabase"]
)
def test_a_url_that_may_be_right_is_tried(url: str) -> None:
    assert judge_address(url) is None


def test_a_reference_is_known_of_hosted_projects_only() -> None:
    assert reference_of(PROJECT) == "abcdefghijklmnopqrst"
    assert reference_of("https://example.com") is None


@pytest.mark.parametrize(("status", "in_json"), [(200, True), (401, True), (404, True), (500, True)])
def test_what_speaks_as_supabase_does_is_supabase(status: int, in_json: bool) -> None:
    assert judge_answer(PROJECT, status, in_json=in_json) is None


@pytest.mark.parametrize("status", [502, 503, 504, 521, 544])
def test_what_a_gateway_says_in_its_own_name_may_pass(status: int) -> None:
    fault = judge_answer(PROJECT, status, in_json=False)
    assert fault is not None
    assert str(status) in fault.text
    assert fault.url == ""


def test_a_redirect_leads_to_the_url_to_set() -> None:
    location = "https://new.example.com/base/rest/v1/rpc/workspace_priority_schema_version"
    fault = judge_answer("http://old.example.com", 308, in_json=False, location=location)
    assert fault is not None
    assert fault.url == "https://new.example.com/base"
    fault = judge_answer("http://old.example.com", 302, in_json=False, location="/login")
    assert fault is not None
    assert fault.url == ""
