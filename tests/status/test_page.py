"""What the page says: numbers and times as people say them, and the state before any figure."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from priorityd.core.priorities import TRIGGERS
from priorityd.core.status.problems import PROBLEMS
from priorityd.daemon.status.page import render, render_busy, words
from priorityd.daemon.status.page.runbook import entries
from priorityd.daemon.status.report import Report
from tests.support.documents import Document, document
from tests.support.reports import NOW, REPOSITORY, ROW, a_report, an_hour
from tests.support.status_schema import SCHEMA

OUTBOX = {
    "dispatching": True,
    "pending": 3,
    "oldest_seconds": 2.5,
    "abandoned": 0,
    "last_sent_at": None,
    "last_error": None,
}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0421, "42 ms"),
        (0.0042, "4.2 ms"),
        (0.142, "142 ms"),
        (1.0, "1 s"),
        (1.44, "1.4 s"),
        (59.4, "59 s"),
        (90, "1.5 min"),
        (5400, "1.5 h"),
        (3 * 86_400, "3 days"),
        (None, "–"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "just now"), (12, "12 s ago"), (600, "10 min ago"), (7200, "2 h ago")]
)
def test_times(seconds: float, text: str) -> None:
    assert words.ago(NOW - timedelta(seconds=seconds), NOW) == text


def test_every_trigger_has_its_words() -> None:
    assert set(words.CAUSES) == set(TRIGGERS)
    assert words.ago(None, NOW) == "never"
    assert words.number(1204) == "1,204"


def test_says_in_words_what_is_so() -> None:
    text = re.sub(r"\s+", " ", document().text)
    assert "All 1,204 workspace repositories are high." in text
    assert "Last change 12 s ago, applied in 142 ms" in text
    assert "Repositories counted 8 s ago." in text
    assert "None overtook an older job" in text
    assert "full resync start 17 1.2 s 11:30:40" in text


def test_says_what_waits_to_be_announced() -> None:
    assert "3 changes wait to be announced to Inngest, the oldest for 2.5 s" in document(outbox=OUTBOX).text
    assert "Inngest" not in document().text


def test_says_when_what_waits_was_counted_and_what_holds_the_count_of_ended_jobs_back() -> None:
    jobs = a_report().model_dump()["jobs"]
    text = document().text
    assert "Queued at " in text
    assert "open for" not in text
    jobs |= {"queued_whole": False, "held_back_by": {"pid": 4711, "writes": True, "seconds": 90.0}}
    text = document(jobs=jobs).text
    assert "At least this many queued at " in text
    assert "Backend 4711 has had a transaction open for " in text
    jobs |= {"held_back_by": {"pid": None, "writes": True, "seconds": 90.0}}
    assert "A prepared transaction has been open for " in document(jobs=jobs).text


def test_problems_stand_above_everything_else_that_is_shown() -> None:
    page = render(
        a_report(
            problems=[
                {
                    "name": "sweeps_fail",
                    "severity": "critical",
                    "text": "sweeps <fail>",
                    "alert": "SweepsFail",
                }
            ]
        ),
        NOW,
    )
    assert page.index("sweeps &lt;fail&gt;") < page.index("in a workspace")
    assert "<title>! priorityd" in page


def test_rows_that_cant_be_written_are_named_beside_their_problem() -> None:
    text = "The priority of 4 repositories can't be written: no <such> thing (23514)."
    problem = {"name": "rows_refused", "severity": "critical", "text": text, "alert": "RepositoriesParked"}

    def shown(*reasons: str, headline: str = "Else.") -> str:
        rows = [{"repository_id": REPOSITORY, "name": "acme/web", "reason": reason} for reason in reasons]
        queue = {**a_report().queue.model_dump(), "parked": 4, "parked_repositories": rows}
        return re.sub(r"\s+", " ", document(queue=queue, problems=[problem], headline=headline).text)

    one = shown("no <such> thing (23514)")
    assert f"no <such> thing (23514). acme/web {REPOSITORY} and 3 more What to do runbook: Repo" in one
    two = shown("no <such> thing (23514)", "late (P0001)")
    assert f"late (P0001) acme/web {REPOSITORY} no <such> thing (23514) acme/web" in two
    assert "can't be written. No <such> thing (23514). " in shown("no <such> thing (23514)", headline=text)


def test_rows_without_a_repository_are_named_with_them() -> None:
    text = "The priority of 1 tracked row without a repository can't be written: frozen (P0001)."
    problem = {"name": "rows_refused", "severity": "critical", "text": text, "alert": "RepositoriesParked"}
    for name, shown in ((None, f"tracked row {ROW}"), ("acme/web", f"acme/web (tracked row) {ROW}")):
        row = {"tracked_repository_id": ROW, "name": name, "reason": "frozen (P0001)"}
        queue = {**a_report().queue.model_dump(), "refused_rows_in_all": 3, "refused_rows": [row]}
        told = re.sub(r"\s+", " ", document(queue=queue, problems=[problem], headline="Else.").text)
        assert f"frozen (P0001). {shown} and 2 more What to do" in told


def test_every_problem_with_an_alert_is_explained_by_the_runbook() -> None:
    for name, (severity, alert) in PROBLEMS.items():
        if alert is None:
            continue
        assert [heading for heading, _ in entries()[alert]] == ["Means", "Look at", "Do"], alert
        problem = {"name": name, "severity": severity, "text": f"Something is {name}.", "alert": alert}
        page = render(a_report(problems=[problem]), NOW)
        explained = page[page.index(f'<details id="about-{name}">') : page.index("</details>")]
        assert f"runbook: {alert}" in explained
        assert "`" not in explained
        assert "*" not in explained.replace("count(*)", "").replace("select *", "")
        Document(page)


def test_the_headline_is_not_said_again() -> None:
    text = "The database has not answered for 42 s: no answer within 8 s."
    problem = {"name": "database_silent", "severity": "critical", "text": text, "alert": "DatabaseSilent"}
    told = re.sub(r"\s+", " ", document(headline=text, problems=[problem], ready=False).text)
    assert told.count("has not answered for 42 s") == 1
    assert "for 42 s. No answer within 8 s. All 1,204 workspace repositories are high." in told
    assert "change stream" not in told, "nothing is known of it"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (0, 1, "in 1 workspace"),
        (2, 3, "2 → 3 workspaces"),
        (2, 1, "2 → 1 workspace"),
        (3, 3, "in 3 workspaces"),
        (1, 0, "in no workspace"),
    ],
)
def test_a_change_says_in_how_many_workspaces(old: int, new: int, text: str) -> None:
    change = a_report().recent_changes[0].model_dump()
    change |= {"old_workspace_count": old, "workspace_count": new, "old_priority": "high"}
    row = re.sub(r"\s+", " ", document(recent_changes=[change]).text)
    assert f"high {text} workspace change" in row


def test_says_whether_it_leads_and_for_which_project() -> None:
    assert "abcdefgh.supabase.co leader · as of" in re.sub(r"\s+", " ", document().text)
    assert "standing by · as of" in document(leader=False).text
    starting = document(leader=False, ready=False).text
    assert "standing by" not in starting
    assert "leader ·" not in starting


def test_says_what_became_of_ordered_jobs() -> None:
    ordered = {
        "releasing": True,
        "waiting": True,
        "in_flight": {"high": 2, "medium": 1, "low": 0},
        "lost": 1,
        "last_sent_at": None,
        "held_back_because": None,
    }
    text = document(ordered_jobs=ordered).text
    assert "Ordered jobs: 3 in flight, 1 lost; others are waiting." in text
    assert "Ordered jobs" not in document().text


def test_what_is_live_and_deaf_is_not_said_to_be_followed() -> None:
    assert "Changes are followed live." in document().text
    deaf = {**a_report().listener.model_dump(), "hears": False}
    text = document(listener=deaf, known={**a_report().known.model_dump(), "stream_seconds": 31.0}).text
    assert "followed live" not in text
    assert "nothing has come through it for 31 s" in text


def test_beside_a_problem_the_state_of_the_priorities_is_said_too() -> None:
    text = document(headline="The database has not answered for 42 s.", ready=False).text
    assert "All 1,204 workspace repositories are high." in text
    assert "followed live" not in text


def test_is_whole_in_itself_and_accessible() -> None:
    page = document()
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "style", "onclick"):
            assert name not in attributes, (tag, name)
        if tag == "link":
            assert attributes["href"] == "data:,"
        if tag == "a":
            assert "/" not in (attributes["href"] or ""), "relative, for a proxy with a path"
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    assert "url(" not in render(a_report(), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"snapshot": None},
        {"last_change": {"at": None, "latency_seconds": None}, "recent_changes": []},
        {"history": an_hour(changes=0)},
        {"outbox": OUTBOX},
        {"resync": {**a_report().resync.model_dump(), "recent": []}},
        {"jobs": {**a_report().jobs.model_dump(), "off_because": "there is no table background_jobs"}},
        {"jobs": {**a_report().jobs.model_dump(), "read_by_this_daemon": False}},
        {"jobs": {**a_report().jobs.model_dump(), "counted_until": None}},
    ],
    ids=[
        "not counted",
        "no change",
        "no history",
        "an outbox",
        "no resync",
        "no jobs",
        "not the leader",
        "not read yet",
    ],
)
def test_shows_what_there_is_when_something_is_missing(changes: dict[str, Any]) -> None:
    assert document(**changes).text
    assert Document(render_busy()).text


# The schema.


def test_the_documented_schema_is_that_of_the_report() -> None:
    """Regenerate it with: python -m tests.support.status_schema"""
    assert json.loads(SCHEMA.read_text()) == Report.model_json_schema(mode="serialization")


def test_a_report_is_json_and_comes_back_the_same() -> None:
    assert Report.model_validate_json(a_report().model_dump_json()) == a_report()


def an_inversion(**changes: Any) -> dict[str, Any]:
    return {
        "job_id": UUID(int=3),
        "repository_id": REPOSITORY,
        "name": "acme/web",
        "priority": "low",
        "started_at": NOW,
        "waiting_job_id": UUID(int=4),
        "waiting_repository_id": UUID(int=5),
        "waiting_name": "acme/api",
        "waiting_priority": "high",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "acme/web (low) started at 12:30:40 before acme/api (high)"),
        ({"name": None}, f"{REPOSITORY} (low) started at 12:30:40 before acme/api (high)"),
        (
            {"waiting_name": None, "waiting_repository_id": None},
            "acme/web (low) started at 12:30:40 before a job without a repository (high)",
        ),
    ],
    ids=["both named", "an id", "no repository"],
)
def test_jobs_that_overtook_others_are_told_by_their_repositories_with_the_ids_behind_them(
    changes: dict[str, Any], told: str
) -> None:
    jobs = {**a_report().jobs.model_dump(), "inversions": 2, "inversion_sample": [an_inversion(**changes)]}
    text = re.sub(r"\s+", " ", document(jobs=jobs).text)
    waiting = "" if "waiting_repository_id" in changes else f", repository {UUID(int=5)}"
    ids = f"started job {UUID(int=3)} , repository {REPOSITORY} waited job {UUID(int=4)} {waiting}".strip()
    assert f"2 overtook an older job of a higher priority, among them: {told} {ids}" in text


def test_a_changed_row_without_a_repository_is_shown_by_its_own_name_and_id() -> None:
    for name, shown in ((None, f"tracked row {ROW}"), ("acme/web", f"acme/web (tracked row) {ROW}")):
        change = a_report().recent_changes[0].model_dump() | {"repository_id": None, "name": name}
        told = re.sub(r"\s+", " ", document(recent_changes=[change]).text)
        assert f"at (UTC) {shown} medium → high" in told
