"""What the page says: numbers and times as people say them, and the state before any figure."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from priorityd.core.priorities import PRIORITIES, TRIGGERS
from priorityd.daemon.status.page import render, render_busy, words
from priorityd.daemon.status.page.charts import HEIGHT, WIDTH, change_chart, latency_chart, nice_ceiling
from priorityd.daemon.status.report import HistoryReport, Report
from tests.support.reports import NOW, REPOSITORY, a_report, an_hour
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


# The document.


class Document(HTMLParser):
    """The elements of a page, and its text; fails on one that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "path", "rect"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "rect"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += " " + " ".join(data.split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def document(**changes: Any) -> Document:
    return Document(render(a_report(**changes), NOW))


def test_says_in_words_what_is_so() -> None:
    text = re.sub(r"\s+", " ", document().text)
    assert "All 1,204 workspace repositories are high." in text
    assert "Last change 12 s ago, applied in 142 ms" in text
    assert "Repositories counted 8 s ago." in text
    assert "None overtook an older job" in text
    assert "resync at start 1.2 s 17" in text


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
    assert "At least so many queued at " in text
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


def test_rows_that_cant_be_written_are_named_with_their_reasons() -> None:
    parked = {"repository_id": REPOSITORY, "name": "acme/web", "reason": "no <such> thing (23514)"}
    queue = {**a_report().queue.model_dump(), "parked": 3, "parked_repositories": [parked]}
    text = document(queue=queue).text
    assert f"acme/web {REPOSITORY} : no <such> thing (23514)" in re.sub(r"\s+", " ", text)
    assert "and 2 more" in text


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


# The charts.


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (1, 1), (1.1, 2), (3, 5), (5, 5), (7, 10), (0.14, 0.2), (501, 1000)]
)
def test_a_scale_ends_at_a_round_number(value: float, top: float) -> None:
    assert nice_ceiling(value) == pytest.approx(top)


def test_bars_are_as_high_as_their_numbers_and_stand_on_each_other() -> None:
    chart = change_chart(HistoryReport.model_validate(an_hour(changes=3)))
    assert chart.top == 10
    last = chart.bars[-3:]
    assert [bar.priority for bar in last] == list(PRIORITIES)
    assert [bar.height for bar in last] == [36, 36, 36]
    assert [bar.y for bar in last] == [HEIGHT - 36, HEIGHT - 72, HEIGHT - 108]
    assert all(0 <= bar.x <= WIDTH - bar.width for bar in chart.bars)


def test_latencies_share_one_scale_and_stay_within_it() -> None:
    chart = latency_chart(HistoryReport.model_validate(an_hour()))
    assert chart.top == 0.5
    assert [line.priority for line in chart.lines] == list(PRIORITIES)
    (x, low, high) = chart.lines[0].bars[0]
    assert (x, low, high) == (5, pytest.approx(HEIGHT * (1 - 0.14 / 0.5)), pytest.approx(HEIGHT * 0.38))


# The schema.


def test_the_documented_schema_is_that_of_the_report() -> None:
    """Regenerate it with: python -m tests.support.status_schema"""
    assert json.loads(SCHEMA.read_text()) == Report.model_json_schema(mode="serialization")


def test_a_report_is_json_and_comes_back_the_same() -> None:
    assert Report.model_validate_json(a_report().model_dump_json()) == a_report()
