"""All Prometheus metrics of the daemon; docs/metrics.md says what each is for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from priorityd.core import __version__
from priorityd.core.priorities import PRIORITIES
from priorityd.core.status.facts import Facts
from priorityd.core.status.health import Health
from priorityd.core.status.problems import PROBLEMS
from priorityd.daemon.apply.metrics import ApplyMetrics
from priorityd.daemon.database.metrics import DatabaseMetrics
from priorityd.daemon.jobs.metrics import JobMetrics, ReleaseMetrics
from priorityd.daemon.leader.metrics import LeaderMetrics
from priorityd.daemon.metrics import PREFIX, MetricRegistry
from priorityd.daemon.outbox.metrics import OutboxMetrics
from priorityd.daemon.repair.metrics import RepairMetrics
from priorityd.daemon.stream.metrics import StreamMetrics


class Metrics:
    """The metrics of each room, in a registry that one daemon has to itself."""

    def __init__(self) -> None:
        made = MetricRegistry()
        self.registry = made.collected
        self.refresh = made.refresh
        self.stream = StreamMetrics(made)
        self.leader = LeaderMetrics(made)
        self.database = DatabaseMetrics(made)
        self.apply = ApplyMetrics(made)
        self.repair = RepairMetrics(made)
        self.jobs = JobMetrics(made)
        self.releases = ReleaseMetrics(made)
        self.outbox = OutboxMetrics(made)
        self.snapshots = SnapshotMetrics(made)
        self.health = HealthMetrics(made)
        made.gauge("build_info", "1, labelled with the version.", version=(__version__,)).labels(
            __version__
        ).set(1)


class HealthMetrics:
    """What is known, how old it is, and what is wrong, as on the status page."""

    def __init__(self, made: MetricRegistry) -> None:
        self._ready = made.gauge("ready", "1 if the daemon keeps priorities in sync.")
        self._problem = made.gauge("problem", "1 while this problem exists.", problem=PROBLEMS)
        self._age = made.gauge(
            "known_age_seconds",
            "Age of the database's last answer, of the last heartbeat row that came back, of the last count.",
            of=("database", "stream", "repositories"),
        )

    def blocked(self) -> None:
        """The event loop is blocked, and with it everything that keeps priorities right."""
        self._ready.set(0)

    def show(self, facts: Facts, health: Health) -> None:
        """Show these facts and this verdict."""
        self._ready.set(health.ready)
        there = {problem.name for problem in health.problems}
        for name in PROBLEMS:
            self._problem.labels(name).set(name in there)
        self._age.labels("database").set(facts.database.silent_seconds)
        self._age.labels("stream").set(facts.stream.unheard_seconds)
        self._age.labels("repositories").set(facts.counts.age_seconds if facts.counts else facts.up_seconds)


class SnapshotMetrics:
    """The snapshotter's, about the whole database."""

    def __init__(self, made: MetricRegistry) -> None:
        self.inversions = made.gauge(
            "inversions", "Tracked repositories in a workspace that are neither high nor critical."
        )
        self.untracked = made.gauge(
            "untracked_repositories", "Repositories in a workspace that have no tracked row."
        )
        self.repositories = RepositoryCounts()
        made.collected.register(self.repositories)


class RepositoryCounts(Collector):
    """`repositories{is_workspace_repo,priority}`, replaced as a whole with each snapshot.

    A gauge would keep showing combinations that no longer exist.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def replace(self, counts: dict[tuple[bool, str], int]) -> None:
        """Show these counts by flag and priority."""
        self._counts = {("true" if flag else "false", name): count for (flag, name), count in counts.items()}

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Called by prometheus-client for each scrape."""
        family = GaugeMetricFamily(
            PREFIX + "repositories",
            "Tracked repositories by flag and priority.",
            labels=["is_workspace_repo", "priority"],
        )
        for flag in ("true", "false"):
            for priority in PRIORITIES:
                family.add_metric([flag, priority], self._counts.get((flag, priority), 0))
        yield family
