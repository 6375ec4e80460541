"""The Grafana dashboard as code. `python deploy/grafana/dashboard.py` regenerates `priorityd.json`.

Its rows: correctness, speed, health, jobs by priority, ordered jobs, outbox. Every metric that the daemon
exposes is on it or used by an alert.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_uppercase
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

OUTPUT: Final = Path(__file__).with_name("priorityd.json")
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel: TypeAlias = stat.Panel | timeseries.Panel | heatmap.Panel
Row: TypeAlias = tuple[str, list[Panel]]


def m(name: str, labels: str = "") -> str:
    """A metric of the daemon, of the chosen instances."""
    return f'workspace_priority_{name}{{instance=~"$instance"{"," if labels else ""}{labels}}}'


def number(title: str, expression: str, text: str, *, unit: str = "short", bad_from: float = 1) -> stat.Panel:
    """One figure, red from `bad_from` on."""
    steps = [Threshold(value=None, color="green"), Threshold(value=bad_from, color="red")]
    return (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.AREA)
        .with_target(_query(expression, "", "A"))
    )


def lines(
    title: str,
    text: str,
    *targets: tuple[str, str],
    unit: str = "short",
    stacked: bool = False,
    width: int = 8,
) -> timeseries.Panel:
    """Lines over time; each target is an expression and the name of its lines."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(8)
        .min(0)
        .fill_opacity(15 if stacked else 0)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for reference, (expression, name) in zip(ascii_uppercase, targets, strict=False):
        panel.with_target(_query(expression, name, reference))
    return panel


def heat(title: str, text: str, histogram: str, labels: str = "") -> heatmap.Panel:
    """How many fell into each class of a histogram, over time."""
    expression = f"sum by (le) (increase({m(histogram + '_bucket', labels)}[$__rate_interval]))"
    query = _query(expression, "{{le}}", "A")
    return (
        heatmap.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .span(8)
        .height(8)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .with_target(query.format(PromQueryFormat.HEATMAP))
    )


def quantile(share: float, histogram: str, by: str = "priority") -> str:
    """A quantile of a histogram by a label."""
    buckets = f"sum by (le, {by}) (rate({m(histogram + '_bucket')}[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


def rate(name: str, by: str, labels: str = "") -> str:
    """A counter's increase per second by labels."""
    return f"sum by ({by}) (rate({m(name, labels)}[$__rate_interval]))"


def is_it_right() -> Row:
    """Priorities against membership."""
    return "Correctness", [
        number("Inversions", f"max({m('inversions')})", "Workspace repositories whose priority is not high."),
        number("Parked", f"max({m('parked_repositories')})", "Repositories whose row can't be written."),
        number("Untracked", f"max({m('untracked_repositories')})", "In a workspace without a tracked row."),
        number(
            "Drift in an hour",
            f"sum(increase({m('drift_repaired_total')}[1h]))",
            "Rows that sweeps found wrong and whose change the stream delivered late or not at all.",
        ),
        number(
            "Job inversions in an hour",
            f"sum(increase({m('job_inversions_total')}[1h]))",
            "Jobs that overtook one of a higher priority that was queued no later.",
        ),
        number(
            "Oldest change waiting",
            f"max({m('oldest_pending_seconds')})",
            "How long a repository that may be wrong has been waiting.",
            unit="s",
            bad_from=20,
        ),
        lines(
            "Repositories",
            "Tracked repositories by flag and priority.",
            (
                f"max by (is_workspace_repo, priority) ({m('repositories')})",
                "{{priority}}, in a workspace: {{is_workspace_repo}}",
            ),
            stacked=True,
        ),
        lines(
            "Changes by cause",
            "Rows changed per second, by why they were looked at.",
            (rate("changes_total", "trigger"), "{{trigger}}"),
            stacked=True,
        ),
        lines(
            "Drift",
            "Wrong rows found by sweeps, per second, whose change the stream delivered late or not at all.",
            (rate("drift_repaired_total", "instance"), "{{instance}}"),
        ),
    ]


def is_it_fast() -> Row:
    """From a change to its priority."""
    return "Speed", [
        heat(
            "Latency of changes",
            "From the commit of a change to its priority being applied, by the database's clock.",
            "change_latency_seconds",
        ),
        lines(
            "Latency by priority",
            "Median and 95th percentile.",
            (quantile(0.5, "change_latency_seconds"), "{{priority}} median"),
            (quantile(0.95, "change_latency_seconds"), "{{priority}} p95"),
            unit="s",
        ),
        lines(
            "Burn rate",
            "How many times faster than allowed each promise is broken; above 1 it can't be kept.",
            ("workspace_priority:changes_late:ratio1h / 0.01", "changes within 5 s"),
            ("workspace_priority:high_jobs_late:ratio1h / 0.01", "workspace jobs within 2 h"),
            ("workspace_priority:other_jobs_late:ratio1h / 0.01", "other jobs within 24 h"),
            ("workspace_priority:high_jobs_failed:ratio1h / 0.05", "workspace jobs succeed"),
        ),
    ]


def is_it_healthy() -> Row:
    """The daemon itself."""
    return "Health", [
        lines(
            "Ready, and problems",
            "1 for each daemon that keeps priorities right, and for each problem that it knows.",
            (m("ready"), "{{instance}} ready"),
            (f"{m('problem')} == 1", "{{instance}} {{problem}}"),
        ),
        lines(
            "Age of what is known",
            "Since the database last answered, a heartbeat row came back, and the repositories were counted.",
            (m("known_age_seconds"), "{{instance}} {{of}}"),
            unit="s",
        ),
        lines(
            "Listener",
            "The state that each daemon's listener is in.",
            (f"{m('listener_state')} == 1", "{{instance}} {{state}}"),
        ),
        lines(
            "Stream",
            "Age of the last heartbeat row when it came back, and of whatever came last.",
            (m("stream_lag_seconds"), "{{instance}} lag"),
            (f"time() - {m('stream_last_seen_timestamp_seconds')}", "{{instance}} silence"),
            unit="s",
        ),
        lines(
            "Changes from the stream",
            "Per second, by table and operation; and those that could not be read.",
            (rate("events_total", "table, operation"), "{{table}} {{operation}}"),
            (rate("malformed_events_total", "instance"), "unreadable, {{instance}}"),
        ),
        lines(
            "Work queue",
            "Repositories waiting to be looked at, and those parked.",
            (m("pending_repositories"), "{{instance}} waiting"),
            (m("parked_repositories"), "{{instance}} parked"),
        ),
        lines(
            "Calls that apply changes",
            "Their time, and the repositories in each.",
            (quantile(0.95, "apply_seconds", "instance"), "{{instance}} p95 seconds"),
            (quantile(0.95, "apply_batch_size", "instance"), "{{instance}} p95 repositories"),
        ),
        lines(
            "Calls that failed",
            "Per second by reason, each attempt counted; and connections given up.",
            (rate("call_errors_total", "reason"), "{{reason}}"),
            (rate("reconnects_total", "reason"), "reconnect: {{reason}}"),
        ),
        lines(
            "Sweeps and resyncs",
            "95th percentile of their time, and how long ago the last one succeeded.",
            (quantile(0.95, "resync_seconds", "kind"), "{{kind}} p95"),
            (f"time() - max by (kind) ({m('last_resync_timestamp_seconds')})", "since the last {{kind}}"),
            unit="s",
        ),
        lines(
            "Sweeps and resyncs by outcome",
            "Per second.",
            (rate("resyncs_total", "kind, trigger, outcome"), "{{kind}} {{trigger}} {{outcome}}"),
        ),
        lines(
            "Daemons",
            "Which one does the timer work, and the version of each.",
            (m("leader"), "{{instance}} leads"),
            (m("build_info"), "{{instance}} {{version}}"),
        ),
    ]


def jobs() -> Row:
    """The application's job queue."""
    return "Jobs by priority", [
        lines(
            "Queue",
            "Jobs that are queued.",
            (f"max by (priority) ({m('job_queue_depth')})", "{{priority}}"),
            stacked=True,
        ),
        lines(
            "Oldest queued",
            "How long it had been when the queue was counted, and how old that count is.",
            (f"max by (priority) ({m('job_queue_oldest_seconds')})", "{{priority}}"),
            (f"max({m('job_queue_age_seconds')})", "counted before"),
            unit="s",
        ),
        lines(
            "Ended",
            "Jobs per second by priority and status.",
            (rate("jobs_total", "priority, status"), "{{priority}} {{status}}"),
            stacked=True,
        ),
        lines(
            "Wait",
            "From a job's creation to its start.",
            (quantile(0.5, "job_wait_seconds"), "{{priority}} median"),
            (quantile(0.95, "job_wait_seconds"), "{{priority}} p95"),
            unit="s",
        ),
        lines(
            "Run",
            "From a job's start to its end.",
            (quantile(0.5, "job_duration_seconds"), "{{priority}} median"),
            (quantile(0.95, "job_duration_seconds"), "{{priority}} p95"),
            unit="s",
        ),
        lines(
            "Turnaround",
            "From a job's creation to its end: 2 h are promised for high, 24 h for the others.",
            (quantile(0.5, "job_turnaround_seconds"), "{{priority}} median"),
            (quantile(0.95, "job_turnaround_seconds"), "{{priority}} p95"),
            unit="s",
        ),
    ]


def ordered_jobs() -> Row:
    """Jobs that wait in the database and are released in order."""
    return "Ordered jobs", [
        lines(
            "In flight",
            "Released and not over, of all daemons.",
            (f"max by (priority) ({m('jobs_in_flight')})", "{{priority}}"),
            stacked=True,
        ),
        lines(
            "Releases",
            "Per second; promotions are those that went before higher ones because they were overdue.",
            (rate("jobs_released_total", "priority"), "{{priority}}"),
            (rate("job_promotions_total", "priority"), "{{priority}} promoted"),
        ),
        lines(
            "What goes wrong",
            "1 while Inngest accepts none; how many jobs are lost; per second, the jobs whose lease expired"
            " without a report, those given up, and those whose row can't be written.",
            (f"max({m('job_releases_held_back')})", "held back"),
            (rate("jobs_lost_total", "priority"), "{{priority}} lost"),
            (f"max({m('jobs_lost_now')})", "lost now"),
            (f"sum(rate({m('jobs_given_up_total')}[$__rate_interval]))", "given up"),
            (f"sum(rate({m('jobs_unwritable_total')}[$__rate_interval]))", "not written"),
        ),
    ]


def outbox() -> Row:
    """Announcements to Inngest."""
    return "Outbox", [
        lines(
            "Changes to announce",
            "How many wait.",
            (f"max({m('outbox_pending')})", "waiting"),
        ),
        lines(
            "Oldest of them",
            "How long it has waited.",
            (f"max({m('outbox_oldest_seconds')})", "oldest"),
            unit="s",
        ),
        lines(
            "Announcements",
            "Per second by event and outcome.",
            (rate("dispatched_total", "event, outcome"), "{{event}} {{outcome}}"),
        ),
    ]


def build() -> str:
    """The dashboard as JSON."""
    board = (
        dashboard.Dashboard("priorityd")
        .uid("priorityd")
        .description("Workspace priorities: right, fast, healthy; jobs and announcements.")
        .tags(["priorityd"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Daemon")
            .datasource(SOURCE)
            .query("label_values(workspace_priority_build_info, instance)")
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(selected=True, text="All", value="$__all"))
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    )
    for title, panels in (is_it_right(), is_it_fast(), is_it_healthy(), jobs(), ordered_jobs(), outbox()):
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _query(expression: str, name: str, reference: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(name).ref_id(reference)


if __name__ == "__main__":
    OUTPUT.write_text(build())
