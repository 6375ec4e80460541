"""Plans on 100,000 tracked rows: what dashboards ask, and what the sweep costs when nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.query_plans import explain, source_of
from tests.support.world import World, session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.database import Server

pytestmark = pytest.mark.plans

DISTRIBUTION = """
SELECT
  is_workspace_repo,
  priority,
  COUNT(*) as count,
  AVG(workspace_count) as avg_workspace_count
FROM tracked_repositories
WHERE tracking_enabled = true
GROUP BY is_workspace_repo, priority
ORDER BY is_workspace_repo DESC, priority DESC
"""
INVERSIONS = """
SELECT
  tr.repository_id,
  tr.priority,
  tr.is_workspace_repo,
  COUNT(*) as inversion_count
FROM tracked_repositories tr
WHERE tr.is_workspace_repo = true
  AND tr.priority != 'high'
GROUP BY tr.repository_id, tr.priority, tr.is_workspace_repo
"""


@pytest.fixture(scope="module")
def large(server: Server, template: str) -> Iterator[World]:
    """40,000 tracked rows, 16,000 memberships of 8,000 repositories, everything right."""
    with server.database(template) as database:
        world = session(database)
        world.execute(
            """insert into repositories select from generate_series(1, 40000);
               insert into tracked_repositories (repository_id) select id from repositories;
               insert into workspaces select from generate_series(1, 100);
               insert into workspace_repositories (workspace_id, repository_id)
               select w.id, r.id
               from (select id, row_number() over (order by id) as n from repositories limit 8000) r
               join (select id, row_number() over () as n from workspaces) w
                   on w.n in (1 + r.n % 100, 1 + (r.n + 37) % 100)"""
        )
        pages = world.resync(20_000)
        assert sum(page["changed"] for page in pages) == 8_000
        world.execute("vacuum (analyze)")
        yield world


def test_inversions_are_found_through_the_index(large: World) -> None:
    plan = explain(large, INVERSIONS)
    (scan,) = [node for node in plan if node.get("Index Name")]
    assert scan["Index Name"] == "idx_tracked_repos_workspace_priority"
    assert "is_workspace_repo" in scan["Index Cond"]
    assert not any(node["Node Type"] == "Seq Scan" for node in plan)


def test_the_distribution_reads_the_table_once(large: World) -> None:
    """It averages a column over every enabled row: one pass and a hash of four groups is the best."""
    plan = explain(large, DISTRIBUTION)
    scans = [node for node in plan if node.get("Relation Name") == "tracked_repositories"]
    assert len(scans) == 1
    assert all(node["Actual Rows"] < 10 for node in plan if node["Node Type"] == "Sort")


def test_the_distribution_within_one_group_uses_the_index(large: World) -> None:
    narrowed = DISTRIBUTION.replace(
        "tracking_enabled = true", "tracking_enabled = true and is_workspace_repo = true and priority = 'low'"
    )
    plan = explain(large, narrowed)
    assert [node["Index Name"] for node in plan if node.get("Index Name")] == [
        "idx_tracked_repos_workspace_priority"
    ]


def test_what_the_application_switches_often_is_in_no_index(large: World) -> None:
    """On a page with room such an update touches no index (HOT), ours or its own."""
    counts = """select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables
                where relid = 'tracked_repositories'::regclass"""
    for setting in ("tracking_enabled = not tracking_enabled", "last_sync_at = now()"):
        large.execute("select pg_stat_force_next_flush()")
        with large.connection.transaction(force_rollback=True):
            # The pages of rows that went into a workspace have room since the vacuum.
            large.execute(
                f"""update tracked_repositories set {setting}
                    where id = (select id from tracked_repositories order by ctid limit 1)"""
            )
            assert large.execute(counts).fetchone() == (1, 1), setting


def test_the_snapshot_counts_from_the_index_alone(large: World) -> None:
    counting = source_of(large, "workspace_priority_snapshot")
    start = counting.index("select tr.is_workspace_repo")
    counting = counting[start : counting.index(")", counting.index("group by"))]
    plan = explain(large, counting)
    scans = [node for node in plan if node.get("Relation Name")]
    assert {node["Node Type"] for node in scans} == {"Index Only Scan"}
    assert {node["Index Name"] for node in scans} == {"idx_tracked_repos_workspace_priority"}


def test_the_sweep_never_reads_the_tracked_table_when_nothing_is_wrong(large: World) -> None:
    """Its two queries, as the functions have them: memberships against flagged rows, and the drift index."""
    finding = source_of(large, "mismatched_between")
    finding = finding[finding.index("select") : finding.rindex("$query$")]
    finding = finding.replace("%I", "rows_between")
    finding = finding.replace("%s", "t.workspace_count", 1).replace("%s", "t.is_workspace_repo")
    finding = finding.replace("$1, $2", "null, null")
    with large.connection.transaction(force_rollback=True):
        large.execute("set local work_mem = '64MB'")
        for setting, value in (
            ("enable_hashjoin", "off"),
            ("enable_hashagg", "off"),
            ("effective_cache_size", "1MB"),
        ):
            assert f"{setting}={value}" in large.value(
                "select proconfig from pg_proc where proname = 'mismatched_between'"
            )
            large.execute(f"set local {setting} = '{value}'")
        plan = explain(large, finding)
    scans = {node["Relation Name"]: node for node in plan if node.get("Relation Name")}
    assert scans["tracked_repositories"]["Index Name"] == "idx_tracked_repos_workspace_counts"
    assert scans["tracked_repositories"]["Node Type"] == "Index Only Scan"
    assert scans["tracked_repositories"]["Actual Rows"] == 8_000
    members = [node for node in plan if node.get("Relation Name") == "workspace_repositories"]
    assert sum(node["Actual Rows"] for node in members) == 16_000, "once, and nothing is counted again"
    # The table lies in the order of its index here: to read its rows as well is no more than twice the work.
    assert sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in members) < 400

    sweeping = source_of(large, "sweep_workspace_priorities")
    start = sweeping.index("(select t.id") + 1
    drifting = sweeping[start : sweeping.index("limit", start)]
    plan = explain(large, drifting)
    (scan,) = [node for node in plan if node.get("Relation Name")]
    assert scan["Index Name"] == "idx_tracked_repos_priority_drift"
    assert scan["Actual Rows"] == 0


def pages_read(world: World, query: str) -> int:
    """Unlike time, the same on every machine."""
    (answer,) = world.value(f"explain (analyze, buffers, format json) {query}")
    return answer["Plan"]["Shared Hit Blocks"] + answer["Plan"]["Shared Read Blocks"]


def test_the_sweep_costs_little_more_than_counting_the_memberships(large: World) -> None:
    sweep = "select sweep_workspace_priorities()"
    pages_read(large, sweep)  # the first call of a session reads the catalog
    counting = pages_read(large, "select repository_id, count(*) from workspace_repositories group by 1")
    table = large.value("select relpages from pg_class where relname = 'tracked_repositories'")
    assert pages_read(large, sweep) < counting + table / 2


def test_a_page_of_a_resync_that_finds_nothing_reads_indexes_alone(large: World) -> None:
    def rows_read() -> int:
        return large.value(
            """select sum(seq_tup_read + idx_tup_fetch)::bigint from pg_stat_xact_user_tables
               where relname = 'tracked_repositories'"""
        )

    before = rows_read()
    page = large.call("resync_workspace_priorities_page", None, 20_000)
    assert (page["examined"], page["changed"]) == (20_000, 0)
    # VACUUM passes over a page that something has pinned at that moment, and its rows are then read.
    assert rows_read() - before < 1_000


def test_what_is_about_one_repository_is_a_few_index_look_ups(large: World) -> None:
    def rows_read_in_sequence() -> int:
        return large.value(
            """select sum(seq_tup_read)::bigint from pg_stat_xact_user_tables
               where relname in ('tracked_repositories', 'workspace_repositories')"""
        )

    one = large.value("select repository_id from workspace_repositories limit 1")
    with large.connection.transaction(force_rollback=True):
        large.execute("update tracked_repositories set priority = 'low' where repository_id = %s", one)
        before = rows_read_in_sequence()
        assert large.sync(one)["changed"] == 1
        large.pin(one, "low")
        large.call("get_repository_priorities", [one])
        large.call("explain_repository_priority", one)
        assert rows_read_in_sequence() == before
