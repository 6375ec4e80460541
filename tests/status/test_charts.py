"""The charts of the status page, and its bands of outages."""

from __future__ import annotations

import re

import pytest

from priorityd.core.priorities import PRIORITIES
from priorityd.daemon.status.page.charts import bands, changes_height, charts, latency_height
from priorityd.daemon.status.report import HistoryReport
from tests.support.documents import document
from tests.support.reports import a_busy_hour, a_report, an_hour


def test_the_scales_are_the_same_whatever_has_happened() -> None:
    assert [latency_height(seconds) for seconds in (0.01, 0.1, 1, 10, 100)] == [100, 75, 50, 25, 0]
    assert (latency_height(0.001), latency_height(1000)) == (100, 0)
    assert (changes_height(0), changes_height(10_000), changes_height(10**6)) == (0, 100, 100)
    assert changes_height(1) > 7


def test_bars_are_as_high_as_their_numbers() -> None:
    every = charts(HistoryReport.model_validate(an_hour(changes=9)))
    assert [chart.priority for chart in every] == list(PRIORITIES)
    for chart in every:
        assert {(bar.height, bar.y) for bar in chart.bars} == {(25, 75)}
        assert all(0 <= bar.x <= 100 - bar.width for bar in chart.bars)
        assert (chart.whiskers[0].x, chart.whiskers[0].low, chart.whiskers[0].high) == (
            pytest.approx(100 / 120, abs=0.01),
            latency_height(0.14),
            latency_height(0.31),
        )


def test_a_priority_to_which_nothing_has_changed_has_no_chart() -> None:
    report = a_report(**a_busy_hour())
    assert [chart.priority for chart in charts(report.history)] == ["high", "medium"]
    assert charts(HistoryReport.model_validate(an_hour(changes=0))) == ()
    assert "Nothing has changed." in document(history=an_hour(changes=0)).text


def test_outages_and_the_time_before_the_daemon_are_bands_with_labels() -> None:
    going_on, deaf, silent, before = bands(a_report(**a_busy_hour()))
    assert (before.kind, before.label, before.x) == ("before", None, 0), (
        "there is no room beside three others"
    )
    assert (silent.label, round(silent.x), round(silent.width)) == ("database silent", 33, 7)
    assert (deaf.label, going_on.label) == ("stream silent", "stream silent")
    assert going_on.x + going_on.width == 100
    lanes = [(band.lane, band.label_x, band.anchor) for band in (silent, deaf, going_on)]
    assert len({lane for lane, _, _ in lanes}) == 3, "they would stand on each other"
    alone = {**a_busy_hour(), "history": an_hour()}
    assert [(band.kind, band.label, band.width) for band in bands(a_report(**alone))] == [
        ("before", "before this daemon", 8.33)
    ]


def test_outages_are_told_in_words_too() -> None:
    text = re.sub(r"\s+", " ", document(**a_busy_hour()).text)
    assert "Outages: stream silent from 12:28:00 to now (2.7 min); stream silent from 12:15" in text
    assert "database silent from 11:51:00 to 11:55:10 UTC (4.2 min)." in text
