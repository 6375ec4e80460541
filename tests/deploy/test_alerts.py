"""Each alert fires when it should and keeps silent when it need not, as Prometheus itself judges.

`promtool test rules` runs the rules as they are against made-up series. A case is series that make the alert
fire, series as close to that as can be that do not, and after how long.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from priorityd.core.status.problems import PROBLEMS
from tests.deploy.rules import ALERTS, FILES, GROUPS, RULES
from tests.support.repository import DEPLOY

PREFIX = "workspace_priority_"

Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """Values are in promtool's notation: `0+5x100` is 0, 5, … 500, one a minute."""

    firing: Series
    silent: Series
    at: str = "30m"
    labels: tuple[tuple[str, str], ...] = ()


def late(metric: str, limit: str, share: float, labels: str = "") -> Series:
    """A histogram with a hundred values a minute, so many of them above the limit."""
    within = round(100 * (1 - share), 3)
    return {
        f'{metric}_bucket{{{labels}le="{limit}"}}': f"0+{within}x2000",
        f"{metric}_count{{{labels.rstrip(',')}}}": "0+100x2000",
    }


def jobs(failed: float, completed: float) -> Series:
    return {
        'jobs_total{priority="high",status="failed"}': f"0+{failed}x2000",
        'jobs_total{priority="high",status="completed"}': f"0+{completed}x2000",
    }


def problem(
    name: str, labels: tuple[tuple[str, str], ...] = (), *, firing: str = "1x60", at: str = "30m"
) -> Case:
    """What the daemon itself takes for one, and another that is none of this alert's."""
    instance = 'instance="a",' if labels else ""
    return Case(
        {f'problem{{{instance}problem="{name}"}}': firing},
        {f'problem{{{instance}problem="{name}"}}': "0x60", 'problem{problem="another"}': "1x60"},
        at,
        labels,
    )


HIGH, OTHER = 'priority="high",', 'priority="medium",'
ONE = (("instance", "a"),)
CASES: dict[str, Case] = {
    "PriorityInversion": Case(
        {"inversions": "0 0 1x30", 'known_age_seconds{of="repositories"}': "120x30"},
        {"inversions": "0 0 1x30", 'known_age_seconds{of="repositories"}': "301x30"},
        "6m",
    ),
    "ChangesAreLost": Case(
        {"drift_repaired_total": "0x5 1x5 2x5 3x5 4x9"},
        {"drift_repaired_total": "0x5 40x30"},
    ),
    "WritesRefused": problem("writes_refused", firing="0 1 0x29", at="2m"),
    "RepositoriesParked": problem("rows_refused", firing="0 1 0x29", at="2m"),
    "RepositoriesUntracked": Case(
        {"untracked_repositories": "1x2000"}, {"untracked_repositories": "1x1000 0x1000"}, "25h"
    ),
    "ChangesAppliedLate": Case(
        late("change_latency_seconds", "5.0", 0.2), late("change_latency_seconds", "5.0", 0.1), "2h"
    ),
    "ChangesAppliedLateForDays": Case(
        late("change_latency_seconds", "5.0", 0.012), late("change_latency_seconds", "5.0", 0.008), "26h"
    ),
    "ChangeWaitsTooLong": problem("change_waits"),
    "WorkspaceJobOverdue": Case(
        {'job_queue_oldest_seconds{priority="high"}': "7000+60x60"},
        {
            'job_queue_oldest_seconds{priority="high"}': "7100x60",
            'job_queue_oldest_seconds{priority="medium"}': "7300x60",
        },
    ),
    "WorkspaceJobsLate": Case(
        late("job_turnaround_seconds", "7200.0", 0.2, HIGH),
        late("job_turnaround_seconds", "7200.0", 0.1, HIGH),
        "2h",
    ),
    "WorkspaceJobsLateForDays": Case(
        late("job_turnaround_seconds", "7200.0", 0.012, HIGH),
        late("job_turnaround_seconds", "7200.0", 0.008, HIGH),
        "26h",
    ),
    "TrackedJobOverdue": Case(
        {'job_queue_oldest_seconds{priority="low"}': "86500x60"},
        {'job_queue_oldest_seconds{priority="low"}': "86300x60"},
    ),
    "TrackedJobsLate": Case(
        late("job_turnaround_seconds", "86400.0", 0.012, OTHER),
        late("job_turnaround_seconds", "86400.0", 0.008, OTHER),
        "26h",
    ),
    "WorkspaceJobsFail": Case(jobs(4, 6), jobs(2, 8), "2h"),
    "WorkspaceJobsFailForDays": Case(jobs(0.6, 9.4), jobs(0.4, 9.6), "26h"),
    "JobsOvertake": Case({"job_inversions_total": "0x20 1x30"}, {"job_inversions_total": "0x5 1x45"}),
    "PrioritydDown": Case(
        {'up{job="priorityd",instance="a"}': "1x5 0x30"},
        {'up{job="priorityd",instance="a"}': "1x28 0x30"},
        labels=(*ONE, ("job", "priorityd")),
    ),
    "NobodyDoesTimerWork": problem("nobody_leads", (*ONE, ("problem", "nobody_leads"))),
    "ChangesNotHeard": problem("changes_not_heard", (*ONE, ("problem", "changes_not_heard"))),
    "DatabaseSilent": problem("database_silent"),
    "SweepsFail": problem("sweeps_fail"),
    "CountsOld": problem("counts_old", (*ONE, ("problem", "counts_old"))),
    "ClockWrong": problem("clock_wrong", (*ONE, ("problem", "clock_wrong"))),
    "JobsNotCounted": problem("jobs_behind"),
    "NotReady": Case({'ready{instance="a"}': "0x60"}, {'ready{instance="a"}': "0x25 1 0x60"}, labels=ONE),
    "StreamLags": Case(
        {'stream_lag_seconds{instance="a"}': "11x60"},
        {'stream_lag_seconds{instance="a"}': "9x60"},
        labels=ONE,
    ),
    "SweepOverdue": Case(
        {'last_resync_timestamp_seconds{kind="sweep"}': "1300x60"},
        {'last_resync_timestamp_seconds{kind="sweep"}': "1600x60"},
    ),
    "ResyncOverdue": Case(
        {'last_resync_timestamp_seconds{kind="full"}': "1x600"},
        {'last_resync_timestamp_seconds{kind="full"}': "7200x600"},
        "8h",
    ),
    "ResyncSlow": Case(
        {
            'resync_seconds_count{kind="full"}': "0x30 1x60",
            'resync_seconds_bucket{kind="full",le="120.0"}': "0x30 0x60",
        },
        {
            'resync_seconds_count{kind="full"}': "0x30 1x60",
            'resync_seconds_bucket{kind="full",le="120.0"}': "0x30 1x60",
        },
        "1h",
    ),
    "ResyncsFail": Case(
        {'resyncs_total{kind="sweep",trigger="sweep",outcome="failed"}': "0+1x60"},
        {
            'resyncs_total{kind="sweep",trigger="sweep",outcome="failed"}': "0x20 2x60",
            'resyncs_total{kind="sweep",trigger="sweep",outcome="done"}': "0+6x60",
        },
        labels=(("kind", "sweep"),),
    ),
    "CallsFail": Case(
        {'call_errors_total{reason="network"}': "0+7x60"},
        {'call_errors_total{reason="network"}': "0+5x60"},
        labels=(("reason", "network"),),
    ),
    "ChangesUnreadable": Case({"malformed_events_total": "0x20 1x30"}, {"malformed_events_total": "3x60"}),
    "Reconnects": Case(
        {'reconnects_total{reason="closed",instance="a"}': "0+0.3x90"},
        {'reconnects_total{reason="closed",instance="a"}': "0+0.1x90"},
        "80m",
        ONE,
    ),
    "JobReleasesHeldBack": Case(
        {"job_releases_held_back": "0 1x30"}, {"job_releases_held_back": "0 1x4 0x30"}
    ),
    "JobsLost": Case(
        {'jobs_lost_total{priority="high"}': "0x20 1x30"},
        {'jobs_lost_total{priority="high"}': "1x60"},
        labels=(("priority", "high"),),
    ),
    "JobsGivenUp": Case({"jobs_given_up_total": "0x20 1x30"}, {"jobs_given_up_total": "1x60"}),
    "JobsUnwritable": Case({"jobs_unwritable_total": "0x20 1x30"}, {"jobs_unwritable_total": "1x60"}),
    "OutboxStuck": problem("announcing_fails"),
    "AnnouncementsRefused": Case(
        {'dispatched_total{event="e",outcome="refused"}': "0x20 1x30"},
        {'dispatched_total{event="e",outcome="failed"}': "0+1x60"},
        labels=(("event", "e"),),
    ),
}


def world(alert: str, series: Series, *, fires: bool) -> dict[str, Any]:
    """One test of promtool's."""
    case, rule = CASES[alert], ALERTS[alert]
    inputs = [
        {"series": name if name.startswith("up") else PREFIX + name, "values": values}
        for name, values in series.items()
    ]
    expected = [
        {
            "exp_labels": {**rule["labels"], **dict(case.labels)},
            "exp_annotations": rule["annotations"],
        }
    ]
    return {
        "interval": "1m",
        "name": f"{alert} {'fires' if fires else 'is silent'}",
        "input_series": inputs,
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": alert, "exp_alerts": expected if fires else []}
        ],
    }


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.promtool
@pytest.mark.parametrize("alert", CASES)
def test_fires_when_it_should_and_only_then(alert: str, tmp_path: Path) -> None:
    case = CASES[alert]
    tests = {
        "rule_files": [str(RULES / name) for name in FILES],
        "group_eval_order": [group["name"] for group in GROUPS],
        # Over a day each step looks at a day.
        "evaluation_interval": "15m" if case.at in ("25h", "26h") else "1m",
        "tests": [world(alert, case.firing, fires=True), world(alert, case.silent, fires=False)],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", tmp_path / "tests.yml")


@pytest.mark.promtool
def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    promtool("check", "config", RULES / "prometheus.yml")


def test_every_alert_has_its_case() -> None:
    assert set(CASES) == set(ALERTS)


def test_what_the_page_calls_a_problem_has_its_alert() -> None:
    assert {alert for _, alert in PROBLEMS.values() if alert} <= set(ALERTS)


def test_an_alert_on_a_problem_is_as_bad_as_that() -> None:
    told = {
        found[1]: rule["labels"]["severity"]
        for rule in ALERTS.values()
        if (found := re.search(r'problem{problem="(\w+)"}', rule["expr"]))
    }
    assert told == {name: PROBLEMS[name][0] for name in told} != {}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_it_is_and_leads_to_its_entry_in_the_runbook(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    file, anchor = rule["annotations"]["runbook"].split("#")
    runbook = (DEPLOY.parent / file).read_text()
    assert anchor == alert.lower()
    entry = re.search(rf"^### {alert}\n(.*?)(?=^##|\Z)", runbook, re.MULTILINE | re.DOTALL)
    assert entry, "it has no entry"
    for part in ("**Means:**", "Look at", "do:**" if "and **do:**" in entry[1] else "**Do:**"):
        assert part in entry[1], part


def test_the_runbook_has_no_entry_for_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (\w+)", (DEPLOY / "runbook.md").read_text(), re.MULTILINE)) == set(ALERTS)
